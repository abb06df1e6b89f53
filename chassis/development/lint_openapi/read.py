"""The committed document, that of the commit to compare with, and the changes that are wanted."""

import json
import os
import re
import subprocess
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from chassis.development.lint_openapi.descriptions import missing_descriptions
from chassis.development.lint_openapi.operations import Findings, breaking_changes
from chassis.development.lint_openapi.schemas import Finding

ROOT = Path(__file__).parent.parent.parent.parent
DOCUMENT = Path("docs/openapi.json")
WANTED = Path("docs/breaking-changes.md")
MAIN = ("origin/HEAD", "origin/main", "origin/master")
# - `GET /v1/orders: query parameter q is removed`: why
_ENTRY = re.compile(r"^- `([^`]+)`: +(?!WHY$)\S", re.MULTILINE)


class Base(NamedTuple):
    """What to compare with, or why there is nothing."""

    commit: str
    document: dict[str, Any] | None
    reason: str = ""


class Verdict(NamedTuple):
    lines: list[str]
    fault: str = ""


def render(document: dict[str, Any]) -> str:
    """In the order of the routes, which is the same in each process and version of Python."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def lint(document: dict[str, Any], today: date, root: Path = ROOT) -> Verdict:
    if missing := missing_descriptions(document):
        return Verdict(missing, f"See docs/conventions.md: {len(missing)} missing in /docs")
    path = root / DOCUMENT
    if not path.is_file():
        return Verdict(
            [f"There is no {DOCUMENT} to compare with. To have clients of it: make openapi"]
        )
    if path.read_text("utf-8") != render(document):
        return Verdict([], f"{DOCUMENT} is not what the code makes. Run: make openapi")
    base = read_base(root, document)
    if base.document is None:
        return Verdict([f"Breaking changes of the API are not looked for: {base.reason}"])
    found = _unwanted(base.document, document, today, root)
    if not found:
        return Verdict([])
    lines = [f"breaks clients: {finding}{_users(users)}" for finding, users in found.items()]
    hint = f'If that is wanted, say why in {WANTED}; for all: make openapi WHY="..."'
    entries = [_entry(finding, "WHY") for finding in found]
    fault = f"See docs/contract.md: {len(found)} breaking since {base.commit}"
    return Verdict([*lines, hint, *entries], fault)


def write(document: dict[str, Any], today: date, why: str, root: Path = ROOT) -> None:
    """Write the document; and `why` its breaking changes are wanted, if that is said."""
    (root / DOCUMENT).write_text(render(document), "utf-8")
    base = read_base(root, document)
    if why and base.document is not None:
        with (root / WANTED).open("a", encoding="utf-8") as file:
            for finding in _unwanted(base.document, document, today, root):
                file.write(_entry(finding, why) + "\n")


def _unwanted(old: dict[str, Any], new: dict[str, Any], today: date, root: Path) -> Findings:
    wanted = read_wanted(root / WANTED)
    found = breaking_changes(old, new, today)
    return {finding: users for finding, users in found.items() if f"{finding}" not in wanted}


def _entry(finding: Finding, why: str) -> str:
    return f"- `{finding}`: {why}"


def _users(operations: list[str]) -> str:
    if not operations:
        return ""
    more = len(operations) - 3
    shown = ", ".join(operations[:3])
    return f" ({shown} and {more} more)" if more > 0 else f" ({shown})"


def read_wanted(path: Path) -> set[str]:
    return set(_ENTRY.findall(path.read_text("utf-8"))) if path.is_file() else set()


def read_base(root: Path, document: dict[str, Any]) -> Base:
    """OPENAPI_BASE; or where this branch left the main one; on that one, the commit before.

    Without a remote it is the last commit, so that only what is not committed is compared. What had
    another title is another API, as it is in a service that was made of this template.
    """
    commit = os.environ.get("OPENAPI_BASE") or _fork_point(root)
    if commit is None:
        return Base("", None, "this clone lacks the commit to compare with")
    text = _git(root, "show", f"{commit}:{DOCUMENT.as_posix()}")
    if text is None:
        return Base(commit, None, f"{commit[:12]} has no {DOCUMENT}")
    before: dict[str, Any] = json.loads(text)
    if _title(before) != _title(document):
        reason = f"commit {commit[:12]} has that of another service, {_title(before)}"
        return Base(commit, None, reason)
    return Base(commit[:12], before)


def _title(document: dict[str, Any]) -> str:
    title: str = document.get("info", {}).get("title", "")
    return title


def _fork_point(root: Path) -> str | None:
    head = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    for branch in MAIN:
        if (base := _git(root, "merge-base", "HEAD", branch)) is not None:
            return base if base != head else _git(root, "rev-parse", "--verify", "--quiet", "HEAD^")
    is_shallow = _git(root, "rev-parse", "--is-shallow-repository") == "true"
    return None if is_shallow else head


def _git(root: Path, *arguments: str) -> str | None:
    """None if there is no git, no repository or no such commit."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
