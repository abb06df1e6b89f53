"""The pages that links in mails lead to."""

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from app.settings import Settings
from chassis.mail.settings import MailSettings
from chassis.resources import Resources
from tests.account_mail import CONFIRM_RESET, RESET, Mailbox
from tests.logins import EMAIL
from tests.mail import SENDER

PAGES = pytest.mark.parametrize("page", ["/verify", "/reset-password", "/confirm-email"])


@PAGES
async def test_page_runs_its_own_script_and_style_and_nothing_else(
    client: httpx.AsyncClient, page: str
):
    response = await client.get(page)
    policy = response.headers["Content-Security-Policy"]

    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert "unsafe" not in policy
    for element in ("script", "style"):
        [inline] = re.findall(rf"<{element}>(.*?)</{element}>", response.text, re.DOTALL)
        digest = b64encode(sha256(inline.encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}';" in policy
    assert not re.search(r"""\b(src|href|style|on\w+)=|https?://""", response.text)


@PAGES
async def test_page_sends_to_routes_that_exist(client: httpx.AsyncClient, page: str):
    text = (await client.get(page)).text
    paths = (await client.get("/openapi.json")).json()["paths"]
    endpoints = re.findall(r'data-endpoint="([^"]+)"', text)

    assert endpoints
    for form in re.findall(r"<form.*?</form>", text, re.DOTALL):
        [endpoint] = re.findall(r'data-endpoint="([^"]+)"', form)
        names = set(re.findall(r'name="(\w+)"', form)) | (
            {"token"} if " data-token" in form else set()
        )
        body = paths[f"/{endpoint}"]["post"]["requestBody"]["content"]["application/json"]
        document = (await client.get("/openapi.json")).json()
        schema = document["components"]["schemas"][body["schema"]["$ref"].rpartition("/")[2]]
        assert names == set(schema["required"]), endpoint


async def test_link_of_a_mail_changes_nothing(
    client: httpx.AsyncClient,
    settings: Settings,
    resources: Resources,
    tmp_path: Path,
    user: dict[str, Any],
):
    """As programs follow it that look for harm in mails, with and without its fragment."""
    settings.mail = MailSettings(sender=SENDER, url=f"file://{tmp_path}/mail")
    mailbox = Mailbox(client, resources, tmp_path / "mail")
    await mailbox.take()
    token = await mailbox.token(RESET, email=EMAIL)
    for method in ("GET", "HEAD"):
        for link in ("/reset-password", f"/reset-password?token={token}"):
            assert (await client.request(method, link)).status_code == 200
    used = await client.post(CONFIRM_RESET, json={"token": token, "password": "prometheus unbound"})

    assert used.status_code == 200
