"""`make resource` in a copy of the checkout: what it writes passes lint and tests."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import URL

from app.development.make_resource.fields import ResourceError, parse_fields
from tests.command import finish, start
from tests.process import ROOT

CUSTOMER = "name:str:100"
# Every type and option.
PRICE_LIST = """
    name:str:50:unique maker:ref(customer) owner:ref(customer):optional kind:int:optional:unique
    valid_until:date:index:optional status:enum(draft,open):index notes:text:optional
"""
SHELF = "box:ref(box) since:date"
BOX = """
    label:str:30:unique price_list:ref(price_list) weight:float:index fee:money:index day:date
    contact:email:optional:index code:uuid:unique opened:bool:index packed_at:datetime:index
    count:int:index size:enum(s,m,l):index description:text
"""
TESTS = [
    "tests/app/test_customers.py",
    "tests/app/test_price_lists.py",
    "tests/app/test_boxes.py",
    "tests/app/test_shelves.py",
    "tests/chassis/http/test_openapi.py",
]


def copy_checkout(folder: Path) -> Path:
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for file in subprocess.check_output(listed, cwd=ROOT, text=True).split("\0"):
        if file and (ROOT / file).is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, folder / file)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    subprocess.run(["git", "add", "--all", "--force"], cwd=folder, check=True)
    return folder


def changes(checkout: Path) -> str:
    status = ["git", "status", "--porcelain", "--untracked-files=all"]
    return subprocess.check_output(status, cwd=checkout, text=True)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("checkout"))


def summaries_of(checkout: Path, *ids: str) -> dict[str, str]:
    paths = json.loads((checkout / "docs/openapi.json").read_text("utf-8"))["paths"]
    operations = [operation for path in paths.values() for operation in path.values()]
    return {
        each["operationId"]: each["summary"] for each in operations if each["operationId"] in ids
    }


def make(checkout: Path, *arguments: str) -> str:
    code, output, errors = finish(start(checkout, "make-resource", *arguments))
    assert code == 0, errors
    return output


# Where there are customers, and price lists that refer to them.
FAULTS = {
    ("customer", "--fields", "a:int"): "NAME=customer: there is a table customers already; choose",
    ("customer", "--remove"): "app/models/price_list.py uses it: change or remove that first",
}


def refuse(checkout: Path, faults: dict[tuple[str, ...], str]) -> None:
    before = changes(checkout)
    for arguments, message in faults.items():
        code, _, errors = finish(start(checkout, "make-resource", *arguments))

        assert (code, errors[: len(message)]) == (1, message)
        assert changes(checkout) == before


@pytest.mark.drill
def test_generated_resources_pass_lint_and_tests_and_go_without_a_trace(
    checkout: Path, mariadb: URL
):
    before = changes(checkout)
    url = mariadb.render_as_string(hide_password=False)
    environment = os.environ | {"PYTHONPATH": str(checkout), "TEST_DATABASE_URL": url}
    output = make(checkout, "customer", "--fields", CUSTOMER)
    make(checkout, "price_list", "--fields", PRICE_LIST)
    make(checkout, "box", "--plural", "boxes", "--owned", "--fields", BOX)
    make(checkout, "shelf", "--plural", "shelves", "--owned", "--fields", SHELF)
    written = changes(checkout)
    summaries = summaries_of(checkout, "get_customers", "get_price_lists", "create_price_list")
    summaries |= summaries_of(checkout, "get_boxes", "update_box")

    bin = Path(sys.executable).parent
    commands: list[list[str | Path]] = [
        [bin / "ruff", "format", "--check", "--quiet", "."],
        [bin / "ruff", "check", "--quiet", "."],
        [bin / "mypy", "--no-error-summary"],
        [bin / "lint-imports", "--no-logo"],
        [sys.executable, "-m", "app", "lint-openapi"],
        [bin / "pytest", "-n", "0", "--dist", "no", *TESTS],
    ]
    for command in commands:
        done = subprocess.run(
            command, cwd=checkout, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    refuse(checkout, FAULTS)
    make(checkout, "shelf", "--plural", "shelves", "--remove")
    make(checkout, "box", "--plural", "boxes", "--remove")
    make(checkout, "price_list", "--remove")
    make(checkout, "customer", "--remove")

    assert summaries == {
        "get_customers": "List customers",
        "get_price_lists": "List price lists, filtered and sorted",
        "create_price_list": "Add a price list",
        "get_boxes": "List your boxes, filtered and sorted",
        "update_box": "Change one of your boxes; what is not sent stays",
    }
    assert "Next: make test ONLY=tests/app/test_customers.py" in output
    assert "app/services/boxes.py" in written
    assert re.search(r"migrations/versions/\d{4}_boxes.py", written)
    assert changes(checkout) == before


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("", "FIELDS is empty: write FIELDS="),
        ("number", "number: write name:type, in lower case, with a type of str:N, text,"),
        ("a:strr", "a:strr: strr is no type; there are str:N, text, int,"),
        ("a:str", "a:str: write str:N, with N from 1 to 700, or text"),
        ("a:str:9999", "a:str:9999: write str:N, with N from 1 to 700, or text"),
        ("a:int(3)", "a:int(3): only enum and ref have something in parentheses"),
        ("a:int:uniq", "a:int:uniq: uniq is no option; there are unique,"),
        ("a:ref(b)", "a:ref(b): write ref(NAME), of a resource that exists: customer"),
        ("a:enum(b)", "a:enum(b): write enum(open,paid), two or more"),
        ("a:enum(b, c)", "a:enum(b,: write a space between fields, and none within parentheses"),
        ("a:enum(b,b)", "a:enum(b,b): write enum(open,paid), two or more different words"),
        ("a:int a:int", "a: There are two fields of this name; rename one"),
        ("json:int", "json:int: json cannot be the name of a field"),
        ("date:date", "date:date: date cannot be the name of a field"),
        ("class:int", "class:int: class cannot be the name of a field"),
        ("t:text:index", "t:text:index: a text has no index; use str:N"),
        ("a:bool:unique", "a:bool:unique: a row for each value would fill the table"),
    ],
)
def test_a_wrong_field_is_named_with_what_there_is(fields: str, message: str):
    with pytest.raises(ResourceError) as caught:
        parse_fields(fields, "order", {"customer": "customers"})

    assert str(caught.value).startswith(message)


def test_example_of_the_readme_is_one():
    [example] = re.findall(
        r'make resource NAME=order OWNED=yes FIELDS="([^"]*)"', (ROOT / "README.md").read_text()
    )

    fields = parse_fields(example.replace("\\\n", ""), "order", {})

    assert [field.name for field in fields][:2] == ["number", "total"]


@pytest.mark.drill
def test_what_it_cannot_do_it_says_and_changes_nothing(checkout: Path):
    refuse(
        checkout,
        {
            ("Order", "--fields", "a:int"): "NAME=Order: write a noun in lower case",
            ("purchase", "--fields", "a:int"): "NAME=purchase: tests/purchases has a resource",
            ("file", "--fields", "a:int"): "PLURAL=files: app/main.py uses the name files already",
            ("order", "--remove"): "app/models/order.py does not exist; nothing was removed",
        },
    )
