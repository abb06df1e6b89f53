"""`make mail`: python3 -m chassis.development.mail_folder; shows the mail of development.

`make run` writes mail to var/mail, one .eml file each.
"""

import re
from argparse import ArgumentParser
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
HEADERS = ("Subject", "To", "Date")


def show(folder: Path, count: int) -> Iterator[str]:
    """The last `count` mails, the newest last."""
    files = sorted(folder.glob("*.eml"), key=lambda file: file.stat().st_mtime_ns)
    if not files:
        yield f"No mail in {folder}: make run writes there what the service sends"
        return
    shown = files[-count:]
    yield f"{len(files)} in {folder}" + (f", the last {count}:" if count < len(files) else ":")
    for file in shown:
        message = message_from_bytes(file.read_bytes(), policy=policy.default)
        yield f"\n{file.name}"
        yield from (f"{name + ':':8} {_plain(str(message[name]))}" for name in HEADERS)
        yield f"\n{_plain(_text(message)).strip()}"


def _text(message: EmailMessage) -> str:
    body = message.get_body(("plain", "html"))
    return str(body.get_content()) if body else ""


def _plain(text: str) -> str:
    """Without what a terminal could take for a command, as others may have chosen the words."""
    lines = text.splitlines()
    return "\n".join(CONTROL.sub("\N{REPLACEMENT CHARACTER}", line) for line in lines)


if __name__ == "__main__":
    parser = ArgumentParser(prog="make mail", description="Show the mail of development.")
    parser.add_argument("--folder", type=Path, default=Path("var/mail"))
    parser.add_argument("--count", type=int, default=5)
    options = parser.parse_args()
    for line in show(options.folder, max(options.count, 1)):
        print(line)  # noqa: T201
