"""A mail server in a thread of its own, and the mail that it got."""

import email
import email.policy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Mailbox

from app.about import NAME, TITLE
from tests.process import TIMEOUT, free_port

SENDER = f"{TITLE} <{NAME}@example.com>"


def read_mail(folder: Path) -> list[EmailMessage]:
    """All .eml files, or all messages of a Maildir."""
    files = [*folder.glob("*.eml"), *(folder / "new").glob("*")]
    return [
        email.message_from_bytes(file.read_bytes(), policy=email.policy.default) for file in files
    ]


class Refusing:
    """Refuses one command with one reply. Counts its mails by an empty file for each."""

    def __init__(self, folder: Path, command: str, reply: str) -> None:
        folder.mkdir()
        self.folder = folder
        self.refused = command
        self.reply = reply

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, *more: Any) -> str:  # noqa: N802 - SMTP's commands
        (self.folder / f"{time.time_ns()}").touch()
        envelope.mail_from = more[0]
        return self._reply("MAIL")

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, *more: Any) -> str:  # noqa: N802
        envelope.rcpt_tos.append(more[0])
        return self._reply("RCPT")

    async def handle_DATA(self, *details: Any) -> str:  # noqa: N802
        return self._reply("DATA")

    def _reply(self, command: str) -> str:
        return self.reply if command == self.refused else "250 OK"


@contextmanager
def mail_server(handler: Mailbox | Refusing, *, smtputf8: bool = False) -> Iterator[str]:
    """Its URL. With `smtputf8` it takes addresses that are not ASCII (RFC 6531)."""
    controller = Controller(
        handler,
        hostname="127.0.0.1",
        port=free_port(),
        ready_timeout=TIMEOUT,
        enable_SMTPUTF8=smtputf8,
    )
    controller.start()
    try:
        yield f"smtp://{controller.hostname}:{controller.port}"
    finally:
        controller.stop()
