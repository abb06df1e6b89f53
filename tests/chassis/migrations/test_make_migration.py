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
from sqlalchemy import URL

from chassis.development.make_migration.write import write_migration
from chassis.migrations import revision as schema_revision
from chassis.migrations.revision import read_migrations
from tests.command import finish, start
from tests.conftest import execute
from tests.process import ROOT, free_port

NEWEST = int(read_migrations().newest or 0)
NEXT, PARCELS, CHANGES = (f"{NEWEST + n:04}" for n in (1, 2, 3))

# Of what an alteration must keep: rows that others refer to, computed columns, search, ids.
WORK = """
from sqlalchemy import (
    BigInteger, Computed, ForeignKey, Index, Numeric, SmallInteger, String, Text, UniqueConstraint
)
from sqlalchemy.orm import Mapped, mapped_column

from chassis.database.columns import Base, Id, LongText, Versioned


class Person(Versioned, Base):
    __tablename__ = "people"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(300), unique=True)


class Work(Versioned, Base):
    __tablename__ = "works"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    title: Mapped[str] = mapped_column(String(500), index=True)
    language: Mapped[str | None] = mapped_column(String(35), index=True)
    ratings_count: Mapped[int] = mapped_column(index=True)
    ratings_sum: Mapped[int] = mapped_column(BigInteger)
    average_rating: Mapped[float] = mapped_column(
        Numeric(3, 2, asdecimal=False),
        Computed(
            "coalesce(round(ratings_sum * 1.0 / nullif(ratings_count, 0), 2), 0)", persisted=True
        ),
        index=True,
    )
    words: Mapped[str] = mapped_column(LongText)
    source_id: Mapped[int | None] = mapped_column(BigInteger, unique=True)

    __table_args__ = (
        Index("ix_works_words", "words", mariadb_prefix="FULLTEXT").ddl_if(dialect="mariadb"),
        Base.__table_args__,
    )


class WorkPerson(Base):
    __tablename__ = "work_people"

    work_id: Mapped[int] = mapped_column(
        ForeignKey("works.id", ondelete="CASCADE"), primary_key=True
    )
    person_id: Mapped[int] = mapped_column(
        ForeignKey("people.id", ondelete="RESTRICT"), primary_key=True
    )
    position: Mapped[int]

    __table_args__ = (Index(None, "person_id", "work_id"), Base.__table_args__)


class Opinion(Base):
    __tablename__ = "opinions"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    work_id: Mapped[int] = mapped_column(ForeignKey("works.id", ondelete="CASCADE"))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    rating: Mapped[int] = mapped_column(SmallInteger)
    text: Mapped[str] = mapped_column(Text)

    __table_args__ = (
        UniqueConstraint("user_id", "work_id"),
        Index(None, "work_id"),
        Base.__table_args__,
    )


class Picture(Base):
    __tablename__ = "pictures"

    work_id: Mapped[int] = mapped_column(
        ForeignKey("works.id", ondelete="CASCADE"), primary_key=True
    )
    key: Mapped[str] = mapped_column(String(100), unique=True)
"""

PARCEL = """
import uuid
from datetime import date, datetime, time
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, CheckConstraint, Enum, ForeignKey, Index, LargeBinary, Numeric, String
from sqlalchemy.orm import Mapped, mapped_column

from chassis.database.columns import Base, Id, LongText, UTCDateTime, Versioned


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
    "models/work.py": (
        ("    language: Mapped[str | None] = mapped_column(String(35), index=True)\n", ""),
        (
            "    source_id: Mapped",
            "    pages: Mapped[int] = mapped_column(default=7)\n"
            "    format: Mapped[str] = mapped_column(String(20), default='paper', index=True)\n"
            "    owner_id: Mapped[int | None] = mapped_column(\n"
            "        ForeignKey('users.id', ondelete='SET NULL'), index=True)\n"
            "    doubled: Mapped[int] = mapped_column(\n"
            "        Computed('ratings_count * 2', persisted=True), index=True)\n"
            "    sequel_id: Mapped[int | None] = mapped_column(ForeignKey('works.id'))\n"
            "    source_id: Mapped",
        ),
        ("mapped_column(String(500), index=True)", "mapped_column(String(700), unique=True)"),
        ('("user_id", "work_id")', '("user_id", "work_id", "rating")'),
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
    "models/user.py": (("mapped_column(String(100))", "mapped_column(String(100), unique=True)"),),
}
# Up and down with rows in the tables, in a process that has the models of the copy.
TRY = """
import asyncio, json, sys
from sqlalchemy import text
from chassis.migrations import schema, revision
from chassis.migrations.online import may_lock
from chassis.development.make_migration.write import write_migration
from chassis.database.engines import create_engine
from chassis.database.settings import DatabaseSettings

NOW = "'2026-01-01 00:00:00'"
WORK = "INSERT INTO works (id, title, ratings_count, ratings_sum, words, version, created_at,"
WORK += f" updated_at) VALUES ({{}}, '{{}}', 2, 9, '{{}}__', 1, {NOW}, {NOW})"
ROWS = [
    "INSERT INTO users (id, email, name, password_hash, role, created_at, totp)"
    f" VALUES (1, 'a', 'a', '', '', {NOW}, 0)",
    "INSERT INTO people (id, name, version, created_at, updated_at)"
    f" VALUES (1, 'a', 1, {NOW}, {NOW})",
    WORK.format(5, "tea", "tea"),
    WORK.format(9, "gone", "gone"),
    "DELETE FROM works WHERE id = 9",
    "INSERT INTO work_people (work_id, person_id, position) VALUES (5, 1, 0)",
    "INSERT INTO pictures VALUES (5, 'k')",
    f"INSERT INTO user_sessions (id, user_id, created_at, used_at) VALUES (1, 1, {NOW}, {NOW})",
]
MARIADB = "MATCH (words) AGAINST ('+next__' IN BOOLEAN MODE)"
SQLITE = "id IN (SELECT rowid FROM work_search WHERE work_search MATCH 'next__')"
# FTS5 reads the words from `works` itself; the triggers tell its index what changed.
SQLITE_SEARCH = [
    "CREATE VIRTUAL TABLE work_search USING fts5(words, content='works', content_rowid='id', "
    "tokenize='unicode61 tokenchars ''_''')",
    "CREATE TRIGGER work_search_insert AFTER INSERT ON works BEGIN "
    "INSERT INTO work_search(rowid, words) VALUES (new.id, new.words); END",
    "CREATE TRIGGER work_search_delete AFTER DELETE ON works BEGIN INSERT INTO "
    "work_search(work_search, rowid, words) VALUES ('delete', old.id, old.words); END",
]
MARIADB_SEARCH = ["CREATE FULLTEXT INDEX ix_works_words ON works (words)"]

async def main(url, low, middle, high):
    engine = create_engine(DatabaseSettings(url=url), "maintenance")

    async def run(*statements):
        async with engine.begin() as connection:
            return [await connection.execute(text(statement)) for statement in statements]

    async def rows():
        tables = ("users", "works", "work_people", "pictures", "user_sessions")
        found = await run(*(f"SELECT count(*) FROM {table}" for table in tables),
                          "SELECT average_rating FROM works WHERE id = 5")
        return [float(result.scalar_one()) for result in found]

    await schema.migrate(engine, low)
    await run(*(SQLITE_SEARCH if url.startswith("sqlite") else MARIADB_SEARCH))
    await run(*ROWS)
    seen = {"before": await rows()}
    for step in (middle, high, low, high):
        with may_lock("nobody writes meanwhile"):
            await schema.migrate(engine, step)
        seen[step] = await rows()
        if step == high:
            await schema.check(engine)
    seen["added"] = list((await run("SELECT pages, format, owner_id FROM works"))[0].one())
    await run(WORK.format("NULL", "next", "next"))
    search = SQLITE if url.startswith("sqlite") else MARIADB
    seen["next"] = [*(await run(f"SELECT id FROM works WHERE {search}"))[0].scalars()]
    await engine.dispose()
    print(json.dumps(seen))

asyncio.run(main(*sys.argv[1:]))
"""


def copy_checkout(folder: Path) -> Path:
    for name in ("app", "chassis", "migrations"):
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


def add_model(checkout: Path, name: str, source: str) -> None:
    (checkout / f"app/models/{name}.py").write_text(source)
    with (checkout / "app/models/__init__.py").open("a") as file:
        file.write(f"import app.models.{name}\n")


def command(checkout: Path, *arguments: str, **variables: str) -> tuple[int, str, str]:
    """By the source of that checkout."""
    return finish(start(checkout, *arguments, **variables))


def make(checkout: Path, *arguments: str) -> tuple[int, str, str]:
    return command(checkout, "make-migration", *arguments)


def lint(checkout: Path, *command: str) -> None:
    subprocess.run([sys.executable, "-m", *command], cwd=checkout, check=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return copy_checkout(tmp_path)


@pytest.fixture(scope="module")
def changed_checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With two migrations that add tables, and one that changes tables."""
    checkout = copy_checkout(tmp_path_factory.mktemp("checkout"))
    add_model(checkout, "work", WORK)
    code, _, errors = make(checkout, "works")
    assert code == 0, errors
    add_model(checkout, "parcel", PARCEL)
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
    assert "Note: works.language is dropped with its values" in warnings
    assert "Note: parcels.note becomes NOT NULL" in warnings
    assert "Note: uq_users_name fails where rows of users are not unique" in warnings
    return checkout


@pytest.fixture(params=["sqlite", "mariadb"])
async def url(request: pytest.FixtureRequest, mariadb: URL, tmp_path: Path) -> AsyncIterator[str]:
    name = f"test_{secrets.token_hex(4)}"
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path}/{name}.db"
        return
    await execute(mariadb, f"CREATE DATABASE {name}")
    yield mariadb.set(database=name).render_as_string(hide_password=False)
    await execute(mariadb, f"DROP DATABASE {name}")


def test_what_is_written_passes_the_lint_and_names_nothing_of_the_service(changed_checkout: Path):
    files = sorted((changed_checkout / "migrations/versions").glob("*.py"))[-3:]
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
    steps = [NEXT, PARCELS, CHANGES]

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
    file = checkout / f"migrations/versions/{NEXT}_fill_titles.py"
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


@pytest.mark.drill
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
        command(checkout, "migrate", **variables),
        command(checkout, "work", **variables),
    ]
    _, findings, _ = command(checkout, "check", **variables)
    served = subprocess.run(
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
    assert served.returncode == 1
    assert "Several migrations claim to be the newest" in served.stderr
    assert "Traceback" not in served.stderr + served.stdout


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
