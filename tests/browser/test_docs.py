"""/docs in headless Chromium that can reach no host but this one: `make test-browser`."""

import asyncio
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Servers
from tests.process import ROOT, Service, running

SCREENSHOT = ROOT / "var" / "docs.png"


@pytest.fixture(scope="session")
def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if program := shutil.which(name):
            return program
    pytest.fail("Install Chromium (apt-get install chromium) to look at the page with it")


@pytest.fixture
async def service(database_url: str, servers: Servers, tmp_path: Path) -> Any:
    async with running(
        tmp_path / "log",
        DATABASE_URL=database_url,
        DATABASE_POOL_SIZE=5,
        REDIS_URL=servers.redis_url,
        WEB_CONCURRENCY=1,
    ) as service:
        yield service


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
