"""`make mail` shows what the service wrote to var/mail."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chassis.mail.mailer import Mailer, make_mailer
from chassis.mail.settings import MailSettings
from chassis.resources import declare_metrics
from tests.process import ROOT


@pytest.fixture
def mailer(tmp_path: Path) -> Mailer:
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "note.txt").write_text("Dear {{ name }},\nthe text.\n")
    (templates / "note.html").write_text("<p>Not the text</p>\n")
    settings = MailSettings.model_validate(
        {"url": f"file://{tmp_path}/mail", "sender": "Tests <tests@example.com>"}
    )
    return make_mailer(settings, templates, declare_metrics())


def show(folder: Path, *options: str) -> str:
    command = [sys.executable, "-m", "chassis.development.mail_folder", "--folder", str(folder)]
    return subprocess.run(
        [*command, *options], cwd=ROOT, check=True, capture_output=True, encoding="utf-8"
    ).stdout


async def test_last_mails_are_shown_with_subject_recipient_time_and_text_newest_last(
    mailer: Mailer, tmp_path: Path
):
    for number, name in enumerate(["Ann", "Bea", "Čeněk"]):
        await mailer.send(
            f"{name[0].lower()}@example.com",
            f"Note für {name}",
            "note",
            {"name": name},
            f"k{number}",
        )
        os.utime(tmp_path / "mail" / f"k{number}.eml", (number, number))

    output = show(tmp_path / "mail", "--count", "2")

    assert output.startswith(f"3 in {tmp_path}/mail, the last 2:\n")
    assert "Ann" not in output
    assert output.index("Dear Bea,\nthe text.") < output.index("Dear Čeněk,\nthe text.")
    assert "Subject: Note für Čeněk\nTo:" in output
    assert "b@example.com\nDate:" in output
    assert "<p>" not in output


async def test_control_characters_do_not_reach_the_terminal(mailer: Mailer, tmp_path: Path):
    await mailer.send("a@example.com", "Note", "note", {"name": "\x1b]0;title\x07"}, "key")

    output = show(tmp_path / "mail")

    assert "Dear \N{REPLACEMENT CHARACTER}]0;title\N{REPLACEMENT CHARACTER}," in output
    assert "\x1b" not in output


def test_empty_or_missing_folder_is_said(tmp_path: Path):
    assert show(tmp_path / "none").startswith(f"No mail in {tmp_path}/none: make run writes")
