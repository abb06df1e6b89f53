"""`make-migration` in a copy of the checkout, with models of its own."""

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic.util import CommandError

from app import schema, schema_revision
from app.revisions.write import write_migration
from tests.command import run
from tests.conftest import Servers, execute
from tests.process import ROOT, free_port

NEWEST = int(schema.needed_revision() or 0)
PARCELS, CHANGES = f"{NEWEST + 1:04}", f"{NEWEST + 2:04}"

PARCEL = """
import uuid
from datetime import date, datetime, time
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, CheckConstraint, Enum, ForeignKey, Index, LargeBinary, Numeric, String
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Id, UTCDateTime, Versioned
from app.models.book import LongText


class Status(StrEnum):
    NEW = "new"
    PAID = "paid"


class Parcel(Versioned, Base):
    __tablename__ = "parcels"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    number: Mapped[str] = mapped_column(String(20), unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    total: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    placed_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)
    status: Mapped[Status] = mapped_column(default=Status.NEW)
    channel: Mapped[Status] = mapped_column(Enum(Status, native_enum=False, length=20))
    note: Mapped[str | None] = mapped_column(String(500))
    terms: Mapped[str] = mapped_column(LongText)
    token: Mapped[uuid.UUID]
    due_on: Mapped[date]
    at: Mapped[time | None]
    gift: Mapped[bool] = mapped_column(default=False)
    lines: Mapped[dict[str, Any]] = mapped_column(JSON)
    receipt: Mapped[bytes | None] = mapped_column(LargeBinary)
    weight: Mapped[float]

    __table_args__ = (
        Index(None, "user_id", "placed_at"),
        CheckConstraint("total >= 0", name="ck_parcels_total"),
        Base.__table_args__,
    )
"""
# What is changed in a model, by its file: what is there, and what comes in its place.
CHANGED = {
    "models/book.py": (
        ("    language: Mapped[str | None] = mapped_column(String(35), index=True)\n", ""),
        (
            "    book_authors: Mapped",
            "    pages: Mapped[int] = mapped_column(default=7)\n"
            "    format: Mapped[str] = mapped_column(String(20), default='paper', index=True)\n"
            "    owner_id: Mapped[int | None] = mapped_column(\n"
            "        ForeignKey('users.id', ondelete='SET NULL'), index=True)\n"
            "    doubled: Mapped[int] = mapped_column(\n"
            "        Computed('ratings_count * 2', persisted=True), index=True)\n"
            "    sequel_id: Mapped[int | None] = mapped_column(ForeignKey('books.id'))\n"
            "    book_authors: Mapped",
        ),
        ("mapped_column(String(500), index=True)", "mapped_column(String(700), unique=True)"),
    ),
    "models/parcel.py": (
        ("    note: Mapped[str | None]", "    note: Mapped[str]"),
        (
            "    user_id: Mapped[int] = "
            'mapped_column(ForeignKey("users.id", ondelete="CASCADE"))\n',
            "",
        ),
        ('        Index(None, "user_id", "placed_at"),\n', ""),
        ("    token: Mapped[uuid.UUID]\n", ""),
        ('    PAID = "paid"\n', '    PAID = "paid"\n    SENT = "sent"\n'),
    ),
    "models/review.py": (('("user_id", "book_id")', '("user_id", "book_id", "rating")'),),
    "models/user.py": (("mapped_column(String(100))", "mapped_column(String(100), unique=True)"),),
}
# Up and down with rows in the tables, in a process that has the models of the copy.
TRY = """
import asyncio, json, sys
from sqlalchemy import text
from app import schema, schema_revision
from app.revisions.write import write_migration
from app.database import create_engine
from app.settings import DatabaseSettings

NOW = "'2026-01-01 00:00:00'"
BOOK = "INSERT INTO books (id, title, ratings_count, ratings_sum, words, version, created_at,"
BOOK += f" updated_at) VALUES ({{}}, '{{}}', 2, 9, '{{}}__', 1, {NOW}, {NOW})"
ROWS = [
    "INSERT INTO users (id, email, name, password_hash, role, created_at)"
    f" VALUES (1, 'a', 'a', '', '', {NOW})",
    "INSERT INTO authors (id, name, version, created_at, updated_at)"
    f" VALUES (1, 'a', 1, {NOW}, {NOW})",
    BOOK.format(5, "tea", "tea"),
    BOOK.format(9, "gone", "gone"),
    "DELETE FROM books WHERE id = 9",
    "INSERT INTO book_authors (book_id, author_id, position) VALUES (5, 1, 0)",
    "INSERT INTO covers VALUES (5, 'k')",
    f"INSERT INTO user_sessions (id, user_id, created_at) VALUES (1, 1, {NOW})",
]
MARIADB = "MATCH (words) AGAINST ('+next__' IN BOOLEAN MODE)"
SQLITE = "id IN (SELECT rowid FROM book_search WHERE book_search MATCH 'next__')"

async def main(url, low, middle, high):
    engine = create_engine(DatabaseSettings(url=url), "maintenance")

    async def run(*statements):
        async with engine.begin() as connection:
            return [await connection.execute(text(statement)) for statement in statements]

    async def rows():
        tables = ("users", "books", "book_authors", "covers", "user_sessions")
        found = await run(*(f"SELECT count(*) FROM {table}" for table in tables),
                          "SELECT average_rating FROM books WHERE id = 5")
        return [float(result.scalar_one()) for result in found]

    await schema.migrate(engine, low)
    await run(*ROWS)
    seen = {"before": await rows()}
    for step in (middle, high, low, high):
        await schema.migrate(engine, step)
        seen[step] = await rows()
        if step == high:
            await schema.check(engine)
    seen["added"] = list((await run("SELECT pages, format, owner_id FROM books"))[0].one())
    await run(BOOK.format("NULL", "next", "next"))
    search = SQLITE if url.startswith("sqlite") else MARIADB
    seen["next"] = [*(await run(f"SELECT id FROM books WHERE {search}"))[0].scalars()]
    await engine.dispose()
    print(json.dumps(seen))

asyncio.run(main(*sys.argv[1:]))
"""


def copy_checkout(folder: Path) -> Path:
    for name in ("app", "migrations"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def edit(checkout: Path, changes: dict[str, tuple[tuple[str, str], ...]]) -> None:
    for name, replacements in changes.items():
        file = checkout / "app" / name
        text = file.read_text()
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        file.write_text(text)


def add_parcels(checkout: Path) -> None:
    (checkout / "app/models/parcel.py").write_text(PARCEL)
    with (checkout / "app/models/__init__.py").open("a") as file:
        file.write("from app.models.parcel import Parcel\n")


def make(checkout: Path, *arguments: str) -> tuple[int, str, str]:
    return run(checkout, "make-migration", *arguments)


def lint(checkout: Path, *command: str) -> None:
    subprocess.run([sys.executable, "-m", *command], cwd=checkout, check=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return copy_checkout(tmp_path)


@pytest.fixture(scope="module")
def changed_checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a migration that adds a table, and one that changes tables."""
    checkout = copy_checkout(tmp_path_factory.mktemp("checkout"))
    add_parcels(checkout)
    made = make(checkout, "parcels")
    assert made == (
        0,
        f"migrations/versions/{PARCELS}_parcels.py: read it, then run: make test\n",
        "",
    )
    edit(checkout, CHANGED)
    code, output, warnings = make(checkout, "many_changes")
    assert (code, output) == (
        0,
        f"migrations/versions/{CHANGES}_many_changes.py: read it, then run: make test\n",
    )
    assert "Note: books.language is dropped with its values" in warnings
    assert "Note: parcels.note becomes NOT NULL" in warnings
    assert "Note: uq_users_name fails where rows of users are not unique" in warnings
    return checkout


@pytest.fixture(params=["sqlite", "mariadb"])
async def url(
    request: pytest.FixtureRequest, servers: Servers, tmp_path: Path
) -> AsyncIterator[str]:
    name = f"test_{secrets.token_hex(4)}"
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path}/{name}.db"
        return
    await execute(servers.mariadb, f"CREATE DATABASE {name}")
    yield servers.mariadb.set(database=name).render_as_string(hide_password=False)
    await execute(servers.mariadb, f"DROP DATABASE {name}")


def test_what_is_written_passes_the_lint_and_names_nothing_of_the_service(changed_checkout: Path):
    files = sorted((changed_checkout / "migrations/versions").glob("*.py"))[-2:]
    names = [str(file) for file in files]

    lint(changed_checkout, "ruff", "check", "--quiet", *names)
    lint(changed_checkout, "ruff", "format", "--check", "--quiet", *names)
    lint(changed_checkout, "mypy", "--no-error-summary", f"--cache-dir={ROOT}/.mypy_cache", *names)

    for file in files:
        assert "app." not in file.read_text()
        assert "noqa" not in file.read_text()


async def test_what_is_written_goes_up_and_down_with_rows_in_the_tables(
    changed_checkout: Path, url: str
):
    (changed_checkout / "try.py").write_text(TRY)
    steps = [f"{NEWEST:04}", PARCELS, CHANGES]

    tried = subprocess.run(
        [sys.executable, "try.py", url, *steps],
        cwd=changed_checkout,
        stdout=subprocess.PIPE,
        check=True,
    )

    seen = json.loads(tried.stdout)
    rows = [1, 1, 1, 1, 1, 4.5]
    assert [seen[step] for step in ("before", *steps)] == 4 * [rows]
    assert seen["added"] == [7, "paper", None]
    assert seen["next"] == [10]  # the id of a deleted row is not used again


def test_nothing_is_written_where_nothing_has_changed(checkout: Path):
    before = sorted((checkout / "migrations/versions").iterdir())

    code, output, errors = make(checkout, "nothing")

    assert (code, errors) == (0, "")
    assert output.startswith("Nothing to write")
    assert sorted((checkout / "migrations/versions").iterdir()) == before


def test_an_empty_migration_can_be_asked_for(checkout: Path):
    code, _, _ = make(checkout, "fill_titles", "--empty")

    assert code == 0
    file = checkout / f"migrations/versions/{PARCELS}_fill_titles.py"
    lint(checkout, "ruff", "check", "--quiet", str(file))
    lint(checkout, "ruff", "format", "--check", "--quiet", str(file))
    assert file.read_text().startswith('"""Fill titles"""\n')


@pytest.mark.parametrize("name", ["", "Orders", "two words", "../orders", "1st", 41 * "a"])
def test_a_name_that_no_file_can_have_is_refused(name: str):
    with pytest.raises(CommandError, match=f"^{name!r} is not a name such as orders.*digits"):
        write_migration(name)


def test_a_column_that_existing_rows_have_no_value_for_is_pointed_out(checkout: Path):
    edit(
        checkout,
        {"models/user.py": (("    name: Mapped", "    age: Mapped[int]\n    name: Mapped"),)},
    )
    before = sorted((checkout / "migrations/versions").iterdir())

    code, _, errors = make(checkout, "age")

    assert code == 1
    assert "users.age is NOT NULL, and existing rows have no value for it" in errors
    assert errors.count("\n") == 1
    assert sorted((checkout / "migrations/versions").iterdir()) == before


def add_another_newest(migrations: Path, revision: str) -> None:
    newest = max((migrations / "versions").glob("*.py"))
    text = newest.read_text()
    text = text.replace(f'revision: str = "{NEWEST:04}"', f'revision: str = "{revision}"')
    (migrations / f"versions/{revision}_other.py").write_text(text)


@pytest.mark.parametrize(
    ("revision", "reason"),
    [
        (f"{NEWEST + 1:04}", "claim to be the newest: "),
        (f"{NEWEST:04}", f"have the revision {NEWEST:04}: "),
    ],
)
def test_two_newest_migrations_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, revision: str, reason: str
):
    copy = shutil.copytree(ROOT / "migrations", tmp_path / "migrations")
    add_another_newest(copy, revision)
    monkeypatch.setattr(schema_revision, "MIGRATIONS", copy)

    with pytest.raises(schema_revision.BrokenMigrations) as refusal:
        schema_revision.read_migrations.__wrapped__()

    names = sorted(path.name for path in (copy / "versions").glob("*.py"))[-2:]
    assert f"Several migrations {reason}{', '.join(names)}. " in str(refusal.value)
    assert "down_revision" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_two_newest_migrations_are_one_line_wherever_they_matter(checkout: Path):
    add_another_newest(checkout / "migrations", f"{NEWEST + 1:04}")
    shutil.copy(ROOT / "gunicorn_config.py", checkout)
    variables = {
        "DATABASE_URL": f"sqlite+aiosqlite:///{checkout}/x.db",
        "REDIS_URL": f"unix://{checkout}/nowhere",
        "LOG_FORMAT": "json",
        "TOKENS_KEY": 32 * "k",
    }

    refused = [
        make(checkout, "parcels"),
        run(checkout, "migrate", **variables),
        run(checkout, "work", **variables),
    ]
    _, findings, _ = run(checkout, "check", **variables)
    start = subprocess.run(
        [sys.executable, "-m", "gunicorn", "--config", "gunicorn_config.py"],
        cwd=checkout,
        env=os.environ | variables | {"PORT": f"{free_port()}"},
        capture_output=True,
        text=True,
    )

    for code, _, errors in refused:
        assert code == 1
        assert "Several migrations claim to be the newest" in errors
        assert errors.count("\n") == 1
    assert "Several migrations claim to be the newest" in findings
    assert start.returncode == 1
    assert "Several migrations claim to be the newest" in start.stderr
    assert "Traceback" not in start.stderr + start.stdout


def test_alembic_itself_works_from_a_checkout_and_needs_no_more_than_the_database(checkout: Path):
    def alembic(*arguments: str, **variables: str) -> tuple[int, str]:
        process = subprocess.run(
            [sys.executable, "-m", "alembic", *arguments],
            cwd=checkout,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return process.returncode, process.stdout

    database = {"DATABASE_URL": f"sqlite+aiosqlite:///{checkout}/x.db"}
    unreachable = {"DATABASE_URL": f"sqlite+aiosqlite:///{checkout}/nowhere/x.db"}

    assert alembic("revision", "--autogenerate", "-m", "x") == (
        1,
        "Run: make migration NAME=orders\n",
    )
    assert f"-> {NEWEST:04} (head)" in alembic("history")[1]
    assert alembic("upgrade", "head", **database) == (0, "")
    assert alembic("check", **database)[0] == 0
    code, output = alembic("upgrade", "head", **unreachable)
    assert (code, output.count("\n")) == (1, 2)
    assert output.startswith("The settings are not usable:\n  DATABASE_URL: names ")
