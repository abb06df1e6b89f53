"""The pages of mailed links in headless Chromium, in both themes and by keyboard alone."""

from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from app.settings import Settings
from chassis.mail.settings import MailSettings
from chassis.resources import Resources
from tests.account_mail import Mailbox, text_of
from tests.browser.tab import Tab, open_tab
from tests.databases import sqlite_only
from tests.logins import EMAIL, PASSWORD, REGISTER, log_in
from tests.mail import SENDER
from tests.process import ROOT, running

PICTURES = ROOT / "var" / "browser"
NEW = "prometheus unbound"


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    settings.mail = MailSettings(sender=SENDER, url=f"file://{tmp_path}/mail")
    return settings


async def shown(page: Tab) -> str:
    text: str = await page.evaluate("document.querySelector('main').innerText")
    return text


async def result(page: Tab) -> str:
    await page.until("document.querySelector('output').textContent !== ''")
    text: str = await page.evaluate("document.querySelector('output').textContent")
    return text


@sqlite_only
async def test_links_are_used_by_keyboard(
    chromium: str,
    environment: dict[str, Any],
    resources: Resources,
    settings: Settings,
    client: httpx.AsyncClient,
    tmp_path: Path,
):
    """A forgotten password, from the page that asks for the mail to the login."""
    async with (
        running(tmp_path / "log", **environment) as service,
        service.client() as served,
        open_tab(chromium, tmp_path, width=700) as page,
    ):
        settings.public_url = service.url
        mailbox = Mailbox(client, resources, tmp_path / "mail")
        await client.post("/v1/users", json=REGISTER)
        await mailbox.take()

        await page.open(f"{service.url}/reset-password")
        await page.type(EMAIL)
        await page.press("Enter")
        asked = await result(page)
        [mail] = await mailbox.take()
        [link] = [word for word in text_of(mail).split() if "#token=" in word]
        await page.open(link)
        for theme in ("light", "dark"):
            await page.prefer(theme)
            await page.screenshot(PICTURES / f"reset-password-{theme}.png")
        await page.type("short")
        await page.press("Enter")
        weak = await result(page)
        await page.evaluate("document.querySelector('form:not([hidden]) input').select()")
        await page.type(NEW)
        await page.press("Tab")
        focused = await page.evaluate("document.activeElement.textContent")
        await page.evaluate("document.querySelector('output').textContent = ''")
        await page.press("Enter")
        done = await result(page)
        address = await page.evaluate("location.href")

        assert asked == "If there is an account with this address, a mail is on its way."
        assert "at least 12 characters" in weak
        assert focused == "Set the password"
        assert done == "The new password is set. You can log in with it now."
        assert "token" not in address
        assert (await log_in(served, NEW)).status_code == 200
        assert (await log_in(served, PASSWORD)).status_code == 401

        await page.open(f"{service.url}/verify#token=guess")
        await page.prefer("light")
        await page.type(NEW)
        await page.press("Enter")
        assert (await result(page)).startswith("Is not valid: it has expired")
        await page.screenshot(PICTURES / "verify-refused.png")
        await page.open(f"{service.url}/confirm-email")
        assert "The link of this page is incomplete" in await shown(page)
        await page.open(f"{service.url}/confirm-email#token=guess")
        await page.press("Enter")
        assert (await result(page)).startswith("Is not valid")
