"""docs/guarantees.md promises nothing that no test holds."""

import ast
import re
from functools import cache
from pathlib import Path

from tests.process import ROOT

TEXT = (ROOT / "docs/guarantees.md").read_text("utf-8")
ROWS = [
    row.removesuffix(" <!-- sample -->").strip("| ").split(" | ")
    for row in TEXT.splitlines()
    if row.startswith("| ") and not row.startswith(("| promise |", "| ---"))
]
LINK = re.compile(r"\[`(\w+)`\]\(([\w./]+)\)")


@cache
def functions_of(file: Path) -> set[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    body = ast.parse(file.read_text("utf-8")).body
    return {node.name for node in body if isinstance(node, kinds)}


def test_each_promise_has_a_test_and_says_what_breaks_it():
    assert len(ROWS) > 25
    for row in ROWS:
        assert len(row) == 3, row
        promise, held_by, breaks = row
        assert promise.endswith("."), promise
        assert breaks.endswith("."), promise
        assert LINK.sub("", held_by).replace("<br>", "") == "", promise
        assert LINK.search(held_by), promise


def test_each_test_that_holds_a_promise_exists():
    links = LINK.findall(TEXT)

    gone = [
        f"{path}: {name}"
        for name, path in links
        if not (file := ROOT / "docs" / path).is_file() or name not in functions_of(file)
    ]
    assert gone == []
    assert all(name.startswith("test_") for name, _ in links)
