"""One file of three versions; and what is the service's own in files that the template has too."""

import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from chassis.development.upgrade.trees import File

ABOUT = "app/about.py"
# Lines in which a service says what it is: never the template's. The name itself is renamed.
IDENTITY: Mapping[str, tuple[str, ...]] = {
    ABOUT: (r"^NAME = .*$", r"^TITLE = .*$", r"^SUMMARY = .*$", r"^VERSION = .*$"),
    "pyproject.toml": (r"^name = .*$", r"^version = .*$", r"^description = .*$"),
}


class Renaming:
    """The name of the service in place of the template's, as in app/about.py of both."""

    def __init__(self, old: str, new: str) -> None:
        self.old, self.new = (old, new) if old and new else ("", "")
        self.word = re.compile(rf"(?<![A-Za-z0-9])({re.escape(old)})(?![A-Za-z0-9])", re.IGNORECASE)

    def old_name_in(self, content: bytes) -> bool:
        return (
            self.old != self.new
            and self.word.search(content.decode("utf-8", "replace")) is not None
        )

    def __call__(self, content: bytes) -> bytes:
        if self.old == self.new or b"\0" in content:
            return content
        text = content.decode("utf-8", "surrogateescape")
        return self.word.sub(self._renamed, text).encode("utf-8", "surrogateescape")

    def _renamed(self, found: re.Match[str]) -> str:
        cases = {self.old.capitalize(): self.new.capitalize(), self.old.upper(): self.new.upper()}
        return self.new if found[1] == self.old else cases.get(found[1], found[1])


def read_name(about: File | None) -> str:
    found = about and re.search(r'^NAME = "(.+?)"', about.content.decode(), re.MULTILINE)
    return found[1] if found else ""


def with_identity(path: str, content: bytes, ours: bytes) -> bytes:
    """`content`, with the lines of `ours` that say what the service is."""
    text = content.decode("utf-8", "surrogateescape")
    own = ours.decode("utf-8", "surrogateescape")
    for line in IDENTITY.get(path, ()):
        kept, given = (re.search(line, one, re.MULTILINE) for one in (own, text))
        if kept and given:
            text = f"{text[: given.start()]}{kept[0]}{text[given.end() :]}"
    return text.encode("utf-8", "surrogateescape")


def merge(ours: bytes, base: bytes, theirs: bytes, labels: tuple[str, str]) -> tuple[bytes, int]:
    """The merged file and the number of its conflicts, which are marked with the base between.

    A binary file cannot be merged: it stays `ours`, with one conflict.
    """
    if b"\0" in ours + base + theirs:
        return ours, 1
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("ours", "base", "theirs")]
        for file, content in zip(files, (ours, base, theirs), strict=True):
            file.write_bytes(content)
        names = [option for label in ("yours", *labels) for option in ("-L", label)]
        command = ["git", "merge-file", "-p", "--diff3", *names, *map(str, files)]
        done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode > 127:
        return ours, 1
    return done.stdout, done.returncode
