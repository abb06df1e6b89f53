"""Mail: rendered from templates, sent by SMTP or, in development, written to a folder."""

import re
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

from chassis.clock import now
from chassis.mail.metrics import MailMetrics
from chassis.mail.settings import MailSettings
from chassis.telemetry.metrics import Metrics
from chassis.text.email_address import ascii_form, read_sender

PERMANENT = 500  # SMTP codes from here on are permanent (RFC 5321, 4.2.1)
# Temporary, due to the address or its mailbox (RFC 3463, 3.2 and 3.3), such as a DNS failure.
OF_ADDRESS = re.compile(r"4\.[12]\.\d")


class RecipientRefused(Exception):
    """The server refuses mail for that address, permanently or for now."""

    def __init__(self, reason: str, *, for_good: bool = True) -> None:
        super().__init__(reason)
        self.for_good = for_good


class NoMailServer(Exception):
    def __init__(self) -> None:
        super().__init__("MAIL_URL is not set")


class MailTransport(Protocol):
    async def send(self, message: EmailMessage) -> None: ...


class Mailer:
    def __init__(
        self, transport: MailTransport, sender: str, templates: Path, metrics: Metrics
    ) -> None:
        self.templates = Environment(
            loader=FileSystemLoader(templates),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            keep_trailing_newline=True,
        )
        self.transport = transport
        self.sender = read_sender(sender)
        self.sent = metrics.of(MailMetrics).mails["sent"]

    async def send(
        self, to: str, subject: str, template: str, values: Mapping[str, Any], key: str
    ) -> None:
        """`template` names a .txt and a .html; `key` identifies the mail if it is sent again.

        Put no text that a client chose into `subject` or `values`, unless the owner of the address
        has confirmed it: else anybody could send advertisements through this service.

        Raises RecipientRefused.
        """
        message = EmailMessage(policy=SMTP)
        message["From"] = self.sender
        try:
            message["To"] = ascii_form(to)
        except (ValueError, IndexError) as error:  # Python's parser raises both, too
            raise RecipientRefused(str(error)) from None
        message["Subject"] = subject
        message["Date"] = format_datetime(now())
        message["Message-ID"] = f"<{key}@{self.sender.domain}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no automatic replies
        message.set_content(self.templates.get_template(f"{template}.txt").render(values))
        html = self.templates.get_template(f"{template}.html").render(values)
        message.add_alternative(html, subtype="html")
        await self.transport.send(message)
        self.sent.inc()


class SmtpTransport:
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
            # With a password TLS is required; else it is used where the server offers it.
            "start_tls": True if password and parts.scheme == "smtp" else None,
            "timeout": settings.timeout,
        }

    async def send(self, message: EmailMessage) -> None:
        try:
            await aiosmtplib.send(message, **self.options)
        except aiosmtplib.SMTPRecipientsRefused as refused:
            [reply] = refused.recipients
            for_good = reply.code >= PERMANENT
            if for_good or OF_ADDRESS.match(reply.message):
                raise RecipientRefused(reply.message, for_good=for_good) from None
            raise
        except aiosmtplib.SMTPDataError as refused:
            # Some servers check the recipient only now, and mails differ in nothing else.
            if refused.code >= PERMANENT:
                raise RecipientRefused(refused.message) from None
            raise
        except aiosmtplib.SMTPNotSupported as error:
            # RFC 6531: only the local part of the recipient can be non-ASCII.
            raise RecipientRefused(str(error)) from None


class FileTransport:
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


class UnconfiguredTransport:
    async def send(self, message: EmailMessage) -> None:
        raise NoMailServer


def make_mailer(settings: MailSettings, templates: Path, metrics: Metrics) -> Mailer:
    """Without MAIL_URL each mail fails, so that its job is kept until one is set.

    `templates`: a folder with the Jinja templates NAME.txt and NAME.html of each kind of mail.
    """
    transport: MailTransport = UnconfiguredTransport()
    url = settings.url.get_secret_value() if settings.url else ""
    if url.startswith("file:"):
        transport = FileTransport(Path(unquote(urlsplit(url).path)))
    elif url:
        transport = SmtpTransport(settings, url)
    return Mailer(transport, settings.sender, templates, metrics)
