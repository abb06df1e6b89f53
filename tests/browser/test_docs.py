"""/docs in a browser: `make test-browser`."""

from tests.browser.conftest import Render
from tests.process import ROOT, Service

SCREENSHOT = ROOT / "var" / "docs.png"


async def test_docs_show_every_operation_offline(render: Render, service: Service):
    page = await render(f"{service.url}/docs", "--dump-dom")
    await render(f"{service.url}/docs", f"--screenshot={SCREENSHOT}")

    async with service.client() as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    assert page.count('class="opblock opblock-') == sum(len(path) for path in paths.values())
    assert all(path in page.replace("\u200b", "").replace("<wbr>", "") for path in paths)
    assert SCREENSHOT.stat().st_size > 20_000
