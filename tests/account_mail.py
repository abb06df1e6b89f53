"""Mails with links, as their job sends them, and what their links do."""

import re
from email.message import EmailMessage
from pathlib import Path

import httpx2 as httpx

from chassis.resources import Resources
from tests.jobs import work_off
from tests.mail import read_mail

VERIFY = "/v1/users/verify"
RESEND = "/v1/users/verify/resend"
RESET = "/v1/users/password-reset"
CONFIRM_RESET = "/v1/users/password-reset/confirm"
EMAIL = "/v1/users/me/email"
CONFIRM_EMAIL = "/v1/users/me/email/confirm"
ACCEPTED = {"detail": "If there is something to tell this address, a mail is on its way"}


class Mailbox:
    """Of all addresses: what was sent to a folder, by the jobs that wait."""

    def __init__(self, client: httpx.AsyncClient, resources: Resources, folder: Path) -> None:
        self.client = client
        self.resources = resources
        self.folder = folder
        self.seen: set[str] = set()

    async def take(self) -> list[EmailMessage]:
        """Mails since the last time."""
        await work_off(self.resources)
        mails = [mail for mail in read_mail(self.folder) if mail["Message-ID"] not in self.seen]
        self.seen |= {mail["Message-ID"] for mail in mails}
        return mails

    async def token(self, path: str, **body: str) -> str:
        """Of the one mail that this request leads to."""
        response = await self.client.post(path, json=body)
        assert response.status_code == 202, response.text
        [mail] = await self.take()
        return token_of(mail)


def text_of(mail: EmailMessage) -> str:
    part = mail.get_body(("plain",))
    assert part is not None
    return str(part.get_content())


def html_of(mail: EmailMessage) -> str:
    part = mail.get_body(("html",))
    assert part is not None
    return str(part.get_content())


def token_of(mail: EmailMessage) -> str:
    [token] = re.findall(r"#token=(\S+)", text_of(mail))
    return str(token)
