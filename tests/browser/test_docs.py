"""/docs in headless Chromium that can reach no host but this one: `make test-browser`."""

import asyncio
import subprocess
from pathlib import Path

from tests.process import ROOT, Service

SCREENSHOT = ROOT / "var" / "docs.png"


async def test_docs_show_every_operation_offline(
    chromium: str, service: Service, tmp_path: Path
) -> None:
    def render(*what: str) -> str:
        return subprocess.run(
            [
                *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
                *("--no-first-run", "--disable-background-networking", "--disable-sync"),
                *("--disable-component-update", "--hide-scrollbars", "--window-size=1200,1600"),
                f"--user-data-dir={tmp_path}/chromium",
                "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
                "--virtual-time-budget=10000",
                *what,
                f"{service.url}/docs",
            ],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout

    page = await asyncio.to_thread(render, "--dump-dom")
    await asyncio.to_thread(render, f"--screenshot={SCREENSHOT}")

    async with service.client() as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    assert page.count('class="opblock opblock-') == sum(len(path) for path in paths.values())
    assert all(path in page.replace("\u200b", "").replace("<wbr>", "") for path in paths)
    assert SCREENSHOT.stat().st_size > 20_000
