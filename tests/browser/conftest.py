import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import Servers
from tests.process import Service, running


@pytest.fixture(scope="session")
def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if program := shutil.which(name):
            return program
    pytest.fail("Install Chromium (apt-get install chromium) to look at the pages with it")


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
