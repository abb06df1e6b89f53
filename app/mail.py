"""Mail: written from templates, sent by SMTP or, in development, put into a folder."""

from collections.abc import Mapping
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import aiosmtplib
from anyio import to_thread
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from app.email_address import ascii_form, read_sender
from app.models.base import now
from app.settings import MailSettings

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
)

PERMANENT = 500  # SMTP codes from here on are for good (RFC 5321, 4.2.1)


class Undeliverable(Exception):
    """The server will not take mail for that address, now or later."""


class NoMailServer(Exception):
    def __init__(self) -> None:
        super().__init__("MAIL_URL is not set")


class Way(Protocol):
    async def send(self, message: EmailMessage) -> None: ...


class Mailer:
    def __init__(self, way: Way, sender: str) -> None:
        self.way = way
        self.sender = read_sender(sender)

    async def send(
        self, to: str, subject: str, template: str, values: Mapping[str, Any], key: str
    ) -> None:
        """`template` names a .txt and a .html. The same `key` is the same mail, sent again."""
        message = EmailMessage(policy=SMTP)
        message["From"] = self.sender
        message["To"] = ascii_form(to)
        message["Subject"] = subject
        message["Date"] = format_datetime(now())
        message["Message-ID"] = f"<{key}@{self.sender.domain}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no holiday notes, please
        message.set_content(TEMPLATES.get_template(f"{template}.txt").render(values))
        html = TEMPLATES.get_template(f"{template}.html").render(values)
        message.add_alternative(html, subtype="html")
        await self.way.send(message)


class ByServer:
    def __init__(self, settings: MailSettings, url: str) -> None:
        parts = urlsplit(url)
        password = settings.password.get_secret_value() if settings.password else None
        if password is None and parts.password is not None:
            password = unquote(parts.password)
        self.options: dict[str, Any] = {
            "hostname": parts.hostname,
            "port": parts.port,
            "username": parts.username and unquote(parts.username),
            "password": password,
            "use_tls": parts.scheme == "smtps",
            # A password travels encrypted or not at all; else TLS is used where it is offered.
            "start_tls": True if password and parts.scheme == "smtp" else None,
            "timeout": settings.timeout,
        }

    async def send(self, message: EmailMessage) -> None:
        try:
            await aiosmtplib.send(message, **self.options)
        except aiosmtplib.SMTPRecipientsRefused as refused:
            if all(one.code >= PERMANENT for one in refused.recipients):
                raise Undeliverable(refused.recipients[0].message) from None
            raise
        except aiosmtplib.SMTPNotSupported as error:
            # RFC 6531: only the local part of the recipient can need more than ASCII.
            raise Undeliverable(str(error)) from None


class IntoFolder:
    """One .eml file for each mail, which most mail programs open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def send(self, message: EmailMessage) -> None:
        await to_thread.run_sync(self._write, message)

    def _write(self, message: EmailMessage) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{message['Message-ID'].strip('<>').rpartition('@')[0]}.eml"
        new = file.with_suffix(".new")
        policy = SMTP if message["To"].isascii() else SMTPUTF8
        new.write_bytes(message.as_bytes(policy=policy))
        new.rename(file)


class Nowhere:
    async def send(self, message: EmailMessage) -> None:
        raise NoMailServer


def make_mailer(settings: MailSettings) -> Mailer:
    """Without MAIL_URL each mail fails, so that its job is kept until there is one."""
    if settings.url is None:
        return Mailer(Nowhere(), settings.sender)
    url = settings.url.get_secret_value()
    if url.startswith("file:"):
        return Mailer(IntoFolder(Path(unquote(urlsplit(url).path))), settings.sender)
    return Mailer(ByServer(settings, url), settings.sender)
