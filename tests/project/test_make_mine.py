"""`make mine` in a copy of the checkout: what it leaves passes lint and tests, without a sample."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
from sqlalchemy import URL

from make_mine import names, sample
from make_mine.errors import Refused
from make_mine.marks import without
from make_mine.notes import FOLDER
from tests.chassis.development.test_serve import served
from tests.process import ROOT
from tests.project.test_make_resource import BOX, CUSTOMER, PRICE_LIST, copy_checkout, make

SAMPLE = re.compile(
    r"(?<![a-z])(?<!sre-)(books?|bookshelf|authors?|isbn\w*|sellers?)(?![a-z])", re.I
)
# The licence, and bytes that only look like a word.
NOT_OURS = re.compile(r"AUTHORS OR COPYRIGHT HOLDERS|'WyJ\w+'|\.lock: ")
AUTHOR = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Mary"), ("EMAIL", "mary@example.com"))
}


def files_of(checkout: Path) -> Iterator[str]:
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for path in subprocess.check_output(listed, cwd=checkout, text=True).split("\0"):
        if path and (checkout / path).is_file():
            yield path


def clone(folder: Path) -> Path:
    copy_checkout(folder)
    commit(folder)
    return folder


def commit(checkout: Path) -> None:
    for arguments in (["add", "--all"], ["commit", "--quiet", "--message=State"]):
        subprocess.run(["git", *arguments], cwd=checkout, env=os.environ | AUTHOR, check=True)


def make_mine(checkout: Path, *arguments: str) -> tuple[int, str]:
    """With Python and make alone."""
    done = subprocess.run(
        ["make", "mine", *arguments, f"PYTHON={Path(sys.base_prefix, 'bin', 'python3')}"],
        cwd=checkout,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def check(checkout: Path, mariadb: URL, tests: list[str]) -> None:
    """What `make lint test` does, in the environment of these tests."""
    bin = Path(sys.executable).parent
    commands: list[list[str | Path]] = [
        [bin / "ruff", "format", "--check", "--quiet", "."],
        [bin / "ruff", "check", "--quiet", "."],
        [bin / "mypy", "--no-error-summary"],
        [bin / "lint-imports", "--no-logo"],
        [sys.executable, "-m", "chassis.development.lint_migrations"],
        [sys.executable, "-m", "app", "lint-openapi"],
    ]
    for command in commands:
        done = run_in(checkout, mariadb, *command)
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    done = run_in(checkout, mariadb, bin / "pytest", "--quiet", *tests)
    if done.returncode == 1:  # a machine that others use can keep a process waiting for seconds
        alone = ("--last-failed", "-n", "0", "--dist", "no")
        done = run_in(checkout, mariadb, bin / "pytest", "--quiet", *alone, *tests)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def run_in(checkout: Path, mariadb: URL, *command: str | Path) -> subprocess.CompletedProcess[str]:
    url = mariadb.render_as_string(hide_password=False)
    environment = os.environ | {"PYTHONPATH": str(checkout), "TEST_DATABASE_URL": url}
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_CURRENT_TEST"):
        environment.pop(name, None)
    return subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )


def texts_of(checkout: Path) -> dict[str, bytes]:
    return {path: (checkout / path).read_bytes() for path in files_of(checkout)}


@pytest.fixture(scope="module")
def without_sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkout = clone(tmp_path_factory.mktemp("without"))
    code, output = make_mine(checkout, "NAME=orders", "TITLE=Orders API", "SAMPLE=no")
    assert code == 0, output
    assert "make format lint test" in output
    return checkout


@pytest.mark.drill
def test_no_file_names_the_sample(without_sample: Path):
    found = [
        f"{path}: {line.strip()}"
        for path in files_of(without_sample)
        for line in [path, *(without_sample / path).read_text("utf-8", "replace").splitlines()]
        if SAMPLE.search(line) and not NOT_OURS.search(f"{path}: {line}")
    ]

    assert found == []


@pytest.mark.drill
def test_neither_a_mark_nor_the_command_is_left(without_sample: Path):
    texts = {
        path: text.decode("utf-8", "replace") for path, text in texts_of(without_sample).items()
    }
    marked = [
        path for path, text in texts.items() for word in ("sample", "mine") if has(word, text)
    ]

    assert marked == []
    assert [path for path in texts if "make_mine" in path] == []
    assert "mine" not in re.findall(r"^([a-z-]+):", texts["Makefile"], re.MULTILINE)


def has(word: str, text: str) -> bool:
    return without(word, text) != text


@pytest.mark.drill
def test_notes_are_what_make_resource_writes(without_sample: Path):
    before = texts_of(without_sample)
    make(without_sample, "note", "--remove")
    removed = texts_of(without_sample)
    make(without_sample, "note", "--fields", "title:str:200 text:text")

    assert "app/models/note.py" not in removed
    assert texts_of(without_sample) == before


@pytest.mark.drill
async def test_it_passes_lint_and_tests_and_serves_what_is_added(
    without_sample: Path, mariadb: URL
):
    before = texts_of(without_sample)
    make(without_sample, "customer", "--fields", CUSTOMER)
    make(without_sample, "price_list", "--fields", PRICE_LIST)
    make(without_sample, "box", "--plural", "boxes", "--owned", "--fields", BOX)
    check(without_sample, mariadb, [])  # all tests: what its owner runs first
    async with served(without_sample) as service, service.client() as client:
        health = await client.get("/health")
        added = await client.get("/v1/price-lists")
        notes = await client.get("/v1/notes")
        document = (await client.get("/openapi.json")).json()
    make(without_sample, "box", "--plural", "boxes", "--remove")
    make(without_sample, "price_list", "--remove")
    make(without_sample, "customer", "--remove")

    assert (health.status_code, added.status_code, notes.status_code) == (200, 200, 200)
    assert document["info"]["title"] == "Orders API"
    (without_sample / "log").unlink()
    assert texts_of(without_sample) == before
    check(
        without_sample, mariadb, ["tests/app/test_notes.py", "tests/chassis/http/test_openapi.py"]
    )


@pytest.mark.drill
def test_with_the_sample_the_name_alone_changes(tmp_path: Path, mariadb: URL):
    checkout = clone(tmp_path)
    code, output = make_mine(checkout, "NAME=order_items")

    assert code == 0, output
    assert 'NAME = "order_items"' in (checkout / "app/about.py").read_text()
    assert not any(
        "bookshelf" in text.decode("utf-8", "replace").lower()
        for text in texts_of(checkout).values()
    )
    check(checkout, mariadb, ["tests/project", "tests/app/test_books.py"])
    commit(checkout)
    code, output = make_mine(checkout, "NAME=orders")
    assert (code, "No rule to make target 'mine'" in output) == (2, True)


def test_checkout_that_is_not_clean_is_refused_and_stays_as_it_is(tmp_path: Path):
    checkout = copy_checkout(tmp_path)
    unborn = make_mine(checkout, "NAME=orders")
    commit(checkout)
    (checkout / "app/about.py").write_text("NAME = 1\n")
    changed = make_mine(checkout, "NAME=orders")

    assert (unborn[0], "Run: git init && git add --all" in unborn[1]) == (2, True)
    assert (changed[0], "git stash --include-untracked" in changed[1]) == (2, True)
    assert " M app/about.py" in changed[1]
    status = subprocess.check_output(["git", "status", "--porcelain"], cwd=checkout, text=True)
    assert status == " M app/about.py\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "NAME is empty: write make mine NAME=orders"),
        ("Orders", "NAME=Orders: write a lower-case letter, then"),
        ("my-orders", "NAME=my-orders: write a lower-case letter, then"),
        ("1st", "NAME=1st: write a lower-case letter, then"),
        ("o" * 41, f"NAME={'o' * 41}: write a lower-case letter, then"),
        ("order", "NAME=order: is a word of SQL or YAML; choose another, such as order_api"),
        ("yes", "NAME=yes: is a word of SQL or YAML"),
        ("mysql", "NAME=mysql: is the name of a database"),
    ],
)
def test_wrong_name_is_refused(name: str, message: str):
    with pytest.raises(Refused) as caught:
        names.check_name(name)

    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "title", ['Orders "API"', "A <a@example.com>", "a\nb", " Orders", "x" * 61]
)
def test_wrong_title_is_refused(title: str):
    with pytest.raises(Refused):
        names.check_title(title)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a\nb  # sample\nc\n", "a\nc\n"),
        ("a\n\n# sample: begin\nb\n# sample: end\n\nc\n", "a\n\nc\n"),
        ("a\n\n\n    # sample: begin\n    b\n    # sample: end\n", "a\n"),
        ("| a |\n| b | <!-- sample -->\n| c |\n", "| a |\n| c |\n"),
        ("a\n<!-- sample: begin -->\nb\n\nc\n<!-- sample: end -->\nd\n", "a\nd\n"),
        ("from a import b  # noqa: F401  # sample\n\nc\n", "\nc\n"),
        ("a  # of the sample\n'# samples'\n", "a  # of the sample\n'# samples'\n"),
    ],
)
def test_marked_lines_go(text: str, left: str):
    assert without("sample", text) == left


def test_block_without_an_end_is_refused():
    with pytest.raises(Refused, match="line 2: there is no `sample: end`"):
        without("sample", "a\n# sample: begin\nb\n")


def test_each_file_that_is_to_go_exists():
    paths = [*files_of(ROOT)]
    gone = [each for each in sample.FILES if not any(fnmatch(path, each) for path in paths)]

    assert gone in ([], ["docs/openapi.json"])
    assert (FOLDER / "app/models/note.py").is_file()
