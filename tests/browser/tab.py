"""A tab of headless Chromium, driven by https://chromedevtools.github.io/devtools-protocol."""

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp

from tests.process import TIMEOUT


class Tab:
    """`events` are those of the domains that are enabled: what it requested, logged and showed."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.events: list[dict[str, Any]] = []
        self._socket = socket
        self._ids = count(1)

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        id = next(self._ids)
        await self._socket.send_json({"id": id, "method": method, "params": parameters})
        while (message := await self._receive()).get("id") != id:
            self.events.append(message)
        assert "error" not in message, message
        result: dict[str, Any] = message["result"]
        return result

    async def open(self, url: str) -> None:
        for domain in ("Page", "Network", "Log", "Runtime"):
            await self.send(f"{domain}.enable")
        for address in ("about:blank", url):  # a fragment alone would load nothing
            self.events.clear()
            await self.send("Page.navigate", url=address)
            await self.wait_for("Page.loadEventFired")

    async def wait_for(self, name: str) -> None:
        while not self.of(name):
            self.events.append(await self._receive())

    def of(self, name: str) -> list[dict[str, Any]]:
        return [event["params"] for event in self.events if event["method"] == name]

    async def evaluate(self, expression: str) -> Any:
        result = await self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        return result["result"].get("value")

    async def until(self, expression: str) -> None:
        async with asyncio.timeout(TIMEOUT):
            while not await self.evaluate(expression):
                await asyncio.sleep(0.02)

    async def prefer(self, theme: str) -> None:
        feature = {"name": "prefers-color-scheme", "value": theme}
        await self.send("Emulation.setEmulatedMedia", features=[feature])

    async def type(self, text: str) -> None:
        await self.send("Input.insertText", text=text)

    async def press(self, key: str) -> None:
        code = {"Tab": 9, "Enter": 13}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            await self.send(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                **(text if kind == "keyDown" else {}),
            )

    async def screenshot(self, path: Path) -> bytes:
        image = b64decode((await self.send("Page.captureScreenshot", format="png"))["data"])
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(image)
        return image

    async def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads((await self._socket.receive(TIMEOUT)).data)
        return message


@asynccontextmanager
async def open_tab(chromium: str, folder: Path, width: int = 1000) -> AsyncIterator[Tab]:
    """In a browser of its own, which can reach no host but this one."""
    process = await asyncio.create_subprocess_exec(
        *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
        *("--no-first-run", "--disable-background-networking", "--disable-sync"),
        *("--disable-component-update", "--hide-scrollbars", "--remote-debugging-port=0"),
        f"--user-data-dir={folder}/chromium",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(TIMEOUT):
            while b"DevTools listening on ws://" not in (line := await process.stderr.readline()):
                assert line, "Chromium has ended"
        address = line.split()[-1].decode().split("/")[2]
        async with aiohttp.ClientSession() as session:
            async with session.put(f"http://{address}/json/new?about:blank") as response:
                url = (await response.json())["webSocketDebuggerUrl"]
            async with session.ws_connect(url, max_msg_size=0) as socket:
                tab = Tab(socket)
                await tab.send(
                    "Emulation.setDeviceMetricsOverride",
                    width=width,
                    height=900,
                    deviceScaleFactor=1,
                    mobile=False,
                )
                yield tab
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
