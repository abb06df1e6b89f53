"""/ in headless Chromium: `make test-browser`."""

from pathlib import Path

import pytest

from tests.browser.tab import open_tab
from tests.process import ROOT, Service

LINKS = "[...document.querySelectorAll('a')].map(link => link.href)"
FOCUSED = "document.activeElement.href"
OUTLINE = "getComputedStyle(document.activeElement).outlineStyle"
GROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.mark.parametrize("width", [320, 1000])
@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_page_fits_and_follows_the_theme(
    chromium: str, service: Service, tmp_path: Path, theme: str, width: int
) -> None:
    async with open_tab(chromium, tmp_path, width) as tab:
        await tab.prefer(theme)
        await tab.open(f"{service.url}/")
        ground = await tab.evaluate(GROUND)
        scrolled = await tab.evaluate("document.documentElement.scrollWidth")
        image = await tab.screenshot(ROOT / "var" / f"front-{theme}-{width}.png")

    assert ground == {"light": "rgb(247, 247, 245)", "dark": "rgb(21, 24, 26)"}[theme]
    assert scrolled == width
    assert len(image) > 10_000


async def test_page_requests_nothing_else_and_reports_no_error(
    chromium: str, service: Service, tmp_path: Path
) -> None:
    async with open_tab(chromium, tmp_path) as tab:
        await tab.open(f"{service.url}/")
        await tab.evaluate("new Promise(done => setTimeout(done))")
        requested = [event["request"]["url"] for event in tab.of("Network.requestWillBeSent")]
        reported = [
            *tab.of("Log.entryAdded"),
            *tab.of("Runtime.consoleAPICalled"),
            *tab.of("Runtime.exceptionThrown"),
        ]

    assert [url for url in requested if not url.startswith("data:")] == [f"{service.url}/"]
    assert reported == []


async def test_tab_reaches_each_link_and_shows_where_it_is(
    chromium: str, service: Service, tmp_path: Path
) -> None:
    async with open_tab(chromium, tmp_path) as tab:
        await tab.open(f"{service.url}/")
        links = await tab.evaluate(LINKS)
        reached = []
        for _ in links:
            await tab.press("Tab")
            reached.append((await tab.evaluate(FOCUSED), await tab.evaluate(OUTLINE)))
        await tab.screenshot(ROOT / "var" / "front-focus.png")

    assert len(links) >= 5
    assert reached == [(link, "solid") for link in links]


async def test_enter_opens_the_documentation(
    chromium: str, service: Service, tmp_path: Path
) -> None:
    async with open_tab(chromium, tmp_path) as tab:
        await tab.open(f"{service.url}/")
        await tab.press("Tab")
        tab.events.clear()
        await tab.press("Enter")
        await tab.wait_for("Page.loadEventFired")
        address = await tab.evaluate("location.href")

    assert address == f"{service.url}/docs"
