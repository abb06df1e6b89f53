"""Headless Chromium that can reach no host but this one."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Servers
from tests.process import Service, running

Render = Callable[..., Coroutine[Any, Any, str]]


@pytest.fixture(scope="session")
def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if program := shutil.which(name):
            return program
    pytest.fail("Install Chromium (apt-get install chromium) to look at the pages with it")


@pytest.fixture
def render(chromium: str, tmp_path: Path) -> Render:
    """Open a page, and return the output of the browser: with `--dump-dom` what became of it."""

    def run(url: str, *what: str) -> str:
        return subprocess.run(
            [
                *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
                *("--no-first-run", "--disable-background-networking", "--disable-sync"),
                *("--disable-component-update", "--hide-scrollbars", "--window-size=1200,1600"),
                f"--user-data-dir={tmp_path}/chromium",
                "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
                "--virtual-time-budget=10000",
                *what,
                url,
            ],
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        ).stdout

    async def render(url: str, *what: str) -> str:
        return await asyncio.to_thread(run, url, *what)

    return render


@pytest.fixture
async def service(database_url: str, servers: Servers, tmp_path: Path) -> AsyncIterator[Service]:
    async with running(
        tmp_path / "log",
        DATABASE_URL=database_url,
        DATABASE_POOL_SIZE=5,
        REDIS_URL=servers.redis_url,
        WEB_CONCURRENCY=1,
        WEB_DEVELOPMENT_ACCOUNT="mary@example.com frankenstein",
    ) as service:
        yield service
