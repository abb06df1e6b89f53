"""With which commit `make lint` compares the document, and what it says."""

import subprocess
from copy import deepcopy
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from chassis.development.lint_openapi.read import DOCUMENT, WANTED, Verdict, lint, render
from chassis.development.lint_openapi.read import write as write_all
from tests.command import finish, start
from tests.process import ROOT

TODAY = date(2026, 6, 15)
FIRST: dict[str, Any] = {
    "paths": {
        f"/{name}": {
            "get": {"operationId": f"get_{name}", "summary": "Get it", "tags": ["letters"]}
        }
        for name in "abcd"
    },
    "tags": [{"name": "letters", "description": "Those of the alphabet"}],
}


def without(*paths: str) -> dict[str, Any]:
    document = deepcopy(FIRST)
    for path in paths:
        del document["paths"][path]
    return document


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    command = ["git", *identity, *arguments]
    return subprocess.run(
        command, cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


def write(root: Path, document: dict[str, Any]) -> None:
    (root / DOCUMENT).write_text(render(document), "utf-8")


def commit(root: Path, document: dict[str, Any]) -> str:
    write(root, document)
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--allow-empty", "--message", "Change")
    return git(root, "rev-parse", "HEAD")


@pytest.fixture
def origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("OPENAPI_BASE", raising=False)
    root = tmp_path / "origin"
    (root / "docs").mkdir(parents=True)
    git(root, "init", "--quiet", "--initial-branch", "main")
    commit(root, FIRST)
    return root


def clone(origin: Path, *options: str) -> Path:
    root = origin.parent / "clone"
    git(origin.parent, "clone", "--quiet", *options, f"file://{origin}", str(root))
    return root


def removed(verdict: Verdict) -> list[str]:
    return [line.split()[3] for line in verdict.lines if line.startswith("breaks clients: ")]


def test_without_a_remote_only_what_is_not_committed_is_compared(origin: Path):
    write(origin, without("/a"))
    before = lint(without("/a"), TODAY, origin)
    commit(origin, without("/a"))

    assert removed(before) == ["/a:"]
    assert lint(without("/a"), TODAY, origin) == Verdict([])


def test_branch_is_compared_with_where_it_left_main(origin: Path):
    root = clone(origin)
    git(root, "switch", "--quiet", "--create", "branch")
    commit(root, without("/a"))
    commit(root, without("/a", "/b"))
    write(root, without("/a", "/b", "/c"))
    commit(origin, without("/c"))  # main goes on
    git(root, "fetch", "--quiet")

    assert removed(lint(without("/a", "/b", "/c"), TODAY, root)) == ["/a:", "/b:", "/c:"]


def test_main_branch_is_compared_with_the_commit_before(origin: Path):
    commit(origin, without("/a"))
    commit(origin, without("/a", "/b"))
    root = clone(origin)

    assert removed(lint(without("/a", "/b"), TODAY, root)) == ["/b:"]


def test_variable_names_another_commit(origin: Path, monkeypatch: pytest.MonkeyPatch):
    first = git(origin, "rev-parse", "HEAD")
    commit(origin, without("/a"))
    monkeypatch.setenv("OPENAPI_BASE", first)

    verdict = lint(without("/a"), TODAY, origin)

    assert removed(verdict) == ["/a:"]
    assert first[:12] in verdict.fault


def test_shallow_clone_says_that_it_compares_nothing(origin: Path):
    commit(origin, without("/a"))
    root = clone(origin, "--depth", "1")

    verdict = lint(without("/a"), TODAY, root)

    assert not verdict.fault
    assert len(verdict.lines) == 1
    assert verdict.lines[0].endswith("this clone lacks the commit to compare with")


def test_first_document_has_nothing_to_break(origin: Path):
    git(origin, "rm", "--quiet", str(DOCUMENT))
    git(origin, "commit", "--quiet", "--message", "Remove")
    (origin / "docs").mkdir()
    write(origin, FIRST)

    verdict = lint(FIRST, TODAY, origin)

    assert not verdict.fault
    assert verdict.lines[0].endswith(f"has no {DOCUMENT}")


def test_api_of_another_title_has_nothing_to_break(origin: Path):
    document = without("/a") | {"info": {"title": "Orders"}}
    write(origin, document)

    verdict = lint(document, TODAY, origin)

    assert not verdict.fault
    assert len(verdict.lines) == 1


def test_document_that_is_not_what_the_code_makes_is_refused(origin: Path):
    verdict = lint(without("/a"), TODAY, origin)

    assert verdict.fault == "docs/openapi.json is not what the code makes. Run: make openapi"


def test_operation_without_a_summary_is_refused_before_its_document_is_written(origin: Path):
    document = deepcopy(FIRST)
    document["paths"]["/a"]["get"]["summary"] = "Get A"

    verdict = lint(document, TODAY, origin)

    assert verdict.lines == ["GET /a has no summary: begin the docstring of get_a with one"]
    assert verdict.fault == "See docs/conventions.md: 1 missing in /docs"


def test_service_without_a_document_has_no_contract_yet(origin: Path):
    (origin / DOCUMENT).unlink()

    verdict = lint(FIRST, TODAY, origin)

    assert not verdict.fault
    assert verdict.lines[0].startswith("There is no docs/openapi.json")


def test_entry_with_a_reason_lets_exactly_its_change_pass(origin: Path):
    write(origin, without("/a", "/b"))
    refused = lint(without("/a", "/b"), TODAY, origin)
    entries = [line for line in refused.lines if line.startswith("- ")]
    (origin / WANTED).write_text(entries[0].replace("WHY", "nobody has used it since 2.3"))
    less = lint(without("/a", "/b"), TODAY, origin)
    (origin / WANTED).write_text("\n".join([*entries, entries[1].replace(" WHY", "")]))
    without_reasons = lint(without("/a", "/b"), TODAY, origin)

    assert entries == ["- `GET /a: is removed`: WHY", "- `GET /b: is removed`: WHY"]
    assert removed(less) == ["/b:"]
    assert removed(without_reasons) == ["/a:", "/b:"]


def test_all_entries_can_be_written_at_once(origin: Path):
    write_all(without("/a", "/b"), TODAY, "the sample is gone", origin)
    write_all(without("/a", "/b", "/c"), TODAY, "", origin)

    assert (origin / WANTED).read_text().splitlines() == [
        "- `GET /a: is removed`: the sample is gone",
        "- `GET /b: is removed`: the sample is gone",
    ]
    assert removed(lint(without("/a", "/b", "/c"), TODAY, origin)) == ["/c:"]


def test_committed_document_is_that_of_any_settings_and_order_of_sets(tmp_path: Path):
    noise = {"PORT": "none", "WEB_DOCS": "0", "DATABASE_URL": "", "PYTHONHASHSEED": "7"}

    code, _, errors = finish(start(tmp_path, "lint-openapi", OPENAPI_BASE="HEAD", **noise))

    assert code == 0, errors
    assert '"servers"' not in (ROOT / DOCUMENT).read_text("utf-8")
