"""A mail server in a process of its own, and the mail that it got."""

import email
import email.policy
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path

from tests.process import ROOT, TIMEOUT, free_port, wait_for_port


def read_mail(folder: Path) -> list[EmailMessage]:
    """All .eml files, or all messages of a Maildir."""
    files = [*folder.glob("*.eml"), *(folder / "new").glob("*")]
    return [
        email.message_from_bytes(file.read_bytes(), policy=email.policy.default) for file in files
    ]


class Refusing:
    """Knows nobody."""

    @classmethod
    def from_cli(cls, parser: ArgumentParser, *arguments: str) -> "Refusing":
        return cls()

    async def handle_RCPT(self, *details: object) -> str:  # noqa: N802 - SMTP's command
        return "550 There is nobody of that name"


@contextmanager
def mail_server(
    maildir: Path, handler: str = "aiosmtpd.handlers.Mailbox", smtputf8: bool = False
) -> Iterator[str]:
    """Its URL. With `smtputf8` it takes addresses that are not ASCII (RFC 6531)."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    arguments = ["-n", "-l", address, *(["-u"] if smtputf8 else []), "-c", handler, str(maildir)]
    command = [sys.executable, "-W", "ignore", "-m", "aiosmtpd", *arguments]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        wait_for_port(port)
        yield f"smtp://{address}"
    finally:
        process.terminate()
        process.wait(TIMEOUT)
