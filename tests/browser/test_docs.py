"""/docs in a browser: `make test-browser`."""

from pathlib import Path

import pytest

from tests.browser.conftest import Render
from tests.browser.tab import open_tab
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


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_docs_have_the_theme_of_the_browser_and_the_order_of_tags(
    chromium: str, service: Service, tmp_path: Path, theme: str
):
    async with service.client() as client:
        tags = (await client.get("/openapi.json")).json()["tags"]
    async with open_tab(chromium, tmp_path) as tab:
        await tab.prefer(theme)
        await tab.open(f"{service.url}/docs")
        await tab.until("document.querySelectorAll('.opblock').length > 0")
        await tab.screenshot(SCREENSHOT.with_stem(f"docs-{theme}"))
        background = await tab.evaluate(
            "getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g).map(Number)"
        )
        shown = await tab.evaluate(
            "[...document.querySelectorAll('.opblock-tag')].map(tag => tag.dataset.tag)"
        )

    # Three numbers, or four zeros: none, over the browser's white.
    assert (0 < sum(background) < 150) == (theme == "dark")
    assert shown[: len(tags)] == [tag["name"] for tag in tags]
