"""A page in headless Chromium, driven by its DevTools protocol."""

import asyncio
import itertools
import shutil
import subprocess
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.process import TIMEOUT, wait_until

OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-sync", "--disable-component-update"),
    *("--hide-scrollbars", "--window-size=700,620", "--remote-debugging-port=0"),
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)


class Page:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.numbers = itertools.count(1)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self.numbers)
        await self.socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(TIMEOUT):
            while (reply := await self.socket.receive_json()).get("id") != number:
                pass  # an event
        assert "error" not in reply, reply
        result: dict[str, Any] = reply["result"]
        return result

    async def evaluate(self, script: str) -> Any:
        found = await self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return found["result"].get("value")

    async def until(self, script: str) -> None:
        async with asyncio.timeout(TIMEOUT):
            while not await self.evaluate(script):
                await asyncio.sleep(0.02)

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url="about:blank")  # else a fragment alone loads nothing
        await self.until("location.href === 'about:blank'")
        await self.call("Page.navigate", url=url)
        await self.until("location.href !== 'about:blank' && document.readyState === 'complete'")

    async def prefer(self, theme: str) -> None:
        feature = {"name": "prefers-color-scheme", "value": theme}
        await self.call("Emulation.setEmulatedMedia", features=[feature])

    async def type(self, text: str) -> None:
        await self.call("Input.insertText", text=text)

    async def press(self, key: str, text: str = "") -> None:
        codes = {"Enter": 13, "Tab": 9}
        event = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key], "text": text}
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, **event)

    async def save(self, file: Path) -> None:
        shot = await self.call("Page.captureScreenshot")
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b64decode(shot["data"]))


@asynccontextmanager
async def opened_page(folder: Path) -> AsyncIterator[Page]:
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((found for name in names if (found := shutil.which(name))), None)
    if program is None:
        pytest.fail("Install Chromium (apt-get install chromium) to look at the page with it")
    process = subprocess.Popen(
        [program, *OPTIONS, f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port = folder / "DevToolsActivePort"
        await wait_until(lambda: port.exists() and "\n" in port.read_text(), "DevTools")
        url = f"http://127.0.0.1:{port.read_text().split()[0]}"
        async with aiohttp.ClientSession() as client:
            targets = await (await client.get(f"{url}/json/list")).json()
            [target] = [each for each in targets if each["type"] == "page"]
            async with client.ws_connect(target["webSocketDebuggerUrl"]) as socket:
                yield Page(socket)
    finally:
        process.terminate()
        process.wait()
