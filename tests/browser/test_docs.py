"""/docs in a browser: `make test-browser`."""

from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Render
from tests.conftest import Servers
from tests.process import ROOT, Service, running

SCREENSHOT = ROOT / "var" / "docs.png"


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


async def test_docs_show_every_operation_offline(render: Render, service: Service):
    page = await render(f"{service.url}/docs", "--dump-dom")
    await render(f"{service.url}/docs", f"--screenshot={SCREENSHOT}")

    async with service.client() as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    assert page.count('class="opblock opblock-') == sum(len(path) for path in paths.values())
    assert all(path in page.replace("\u200b", "").replace("<wbr>", "") for path in paths)
    assert SCREENSHOT.stat().st_size > 20_000
