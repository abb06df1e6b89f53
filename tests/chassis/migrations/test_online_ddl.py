"""On a real MariaDB: what a migration does while others read and write the table."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable

import pytest
import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis.database.engines import create_engine
from chassis.database.settings import DatabaseSettings
from chassis.migrations import mariadb_ddl
from chassis.migrations.online import may_lock
from chassis.migrations.schema import migration_transaction
from tests.databases import mariadb_only

pytestmark = mariadb_only

Step = Callable[[Operations], object]
ONLINE_COPY = (11, 2)  # from this version on MariaDB copies a table while others write

TABLE = """CREATE TABLE things (
    id BIGINT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(50) NOT NULL DEFAULT '',
    year INTEGER, longer VARCHAR(64), words TEXT, price NUMERIC(8, 2)
) ENGINE=InnoDB CHARSET=utf8mb4"""
SEARCHED = "CREATE TABLE searched (id BIGINT PRIMARY KEY, words TEXT, FULLTEXT INDEX w (words))"


@pytest.fixture
async def engine(empty_database: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(DatabaseSettings(url=empty_database), "maintenance")
    async with engine.begin() as connection:
        for statement in (TABLE, SEARCHED, "INSERT INTO things (name) VALUES ('a'), ('b')"):
            await connection.exec_driver_sql(statement)
    yield engine
    async with engine.begin() as connection:
        await connection.exec_driver_sql("DROP TABLE IF EXISTS things, searched, fresh")
    await engine.dispose()


async def apply(engine: AsyncEngine, step: Step) -> None:
    async with migration_transaction(engine) as connection:
        await connection.run_sync(lambda sync: step(Operations(MigrationContext.configure(sync))))


async def version(engine: AsyncEngine) -> tuple[int, ...]:
    async with engine.connect() as connection:
        found = await connection.scalar(text("SELECT version()"))
    return tuple(map(int, re.findall(r"\d+", f"{found}")[:2]))


@pytest.mark.parametrize(
    "step",
    [
        lambda op: op.add_column("things", sa.Column("n", sa.Integer)),
        lambda op: op.add_column(
            "things", sa.Column("n", sa.Integer, nullable=False, server_default="7")
        ),
        lambda op: op.add_column(
            "things", sa.Column("n", sa.Integer, sa.Computed("year + 1", persisted=False))
        ),
        lambda op: op.alter_column("things", "name", type_=sa.String(60), existing_nullable=False),
        lambda op: op.alter_column(
            "things", "longer", type_=sa.String(200), existing_nullable=True
        ),
        lambda op: op.alter_column(
            "things", "year", server_default="7", existing_type=sa.Integer()
        ),
        lambda op: op.drop_column("things", "price"),
    ],
)
async def test_step_that_is_called_harmless_is_instant(
    engine: AsyncEngine, step: Step, monkeypatch: pytest.MonkeyPatch
):
    instant = mariadb_ddl.without_lock

    def only_instant(statement: str, created: set[str]) -> str:
        return f"{instant(statement, created)}, ALGORITHM=INSTANT"

    monkeypatch.setattr(mariadb_ddl, "without_lock", only_instant)

    await apply(engine, step)  # else MariaDB refuses


@pytest.mark.parametrize(
    "step",
    [
        lambda op: op.create_index("i", "things", ["year"]),
        lambda op: op.create_index("i", "things", ["name"], unique=True),
        lambda op: op.create_unique_constraint("u", "things", ["name"]),
        lambda op: op.alter_column("things", "name", nullable=True, existing_type=sa.String(50)),
        lambda op: op.add_column("things", sa.Column("n", sa.Text, server_default="100%: {x}")),
        lambda op: op.execute("ALTER TABLE things ADD n INT, ALGORITHM=INSTANT"),
        lambda op: op.execute("ALTER TABLE things ADD n INT;"),
        lambda op: op.drop_index("w", "searched"),
        lambda op: op.rename_table("things", "fresh"),
    ],
)
async def test_step_without_a_lock_is_not_refused(engine: AsyncEngine, step: Step):
    await apply(engine, step)


LOCKING: list[Step] = [
    lambda op: op.alter_column("things", "year", type_=sa.BigInteger(), existing_nullable=True),
    lambda op: op.alter_column("things", "name", type_=sa.String(64), existing_nullable=False),
    lambda op: op.alter_column("things", "price", type_=sa.Numeric(9, 2), existing_nullable=True),
    lambda op: op.create_check_constraint("c", "things", "year > 0"),
    lambda op: op.create_index("f", "things", ["words"], mariadb_prefix="FULLTEXT"),
    lambda op: op.add_column(
        "things", sa.Column("n", sa.Integer, sa.Computed("year", persisted=True))
    ),
    lambda op: op.add_column("searched", sa.Column("n", sa.Integer)),
]


@pytest.mark.parametrize("step", LOCKING)
async def test_step_that_is_said_to_lock_is_refused_until_it_may(engine: AsyncEngine, step: Step):
    if await version(engine) < ONLINE_COPY:
        with pytest.raises(CommandError, match=r"would block all writes to the table: LOCK=NONE"):
            await apply(engine, step)

    with may_lock("two rows"):
        await apply(engine, step)


async def test_table_of_the_same_revision_may_be_locked(engine: AsyncEngine):
    def create(op: Operations) -> None:
        op.create_table("fresh", sa.Column("year", sa.Integer))
        op.alter_column("fresh", "year", type_=sa.BigInteger(), existing_nullable=True)

    await apply(engine, create)


ADD_COLUMN: Step = lambda op: op.add_column("things", sa.Column("n", sa.Integer))  # noqa: E731


async def test_migration_that_waits_for_a_transaction_blocks_others_only_briefly(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(mariadb_ddl, "LOCK_WAIT", 1)
    monkeypatch.setattr(mariadb_ddl, "PAUSE", 0)
    monkeypatch.setattr(mariadb_ddl, "ATTEMPTS", 2)
    async with engine.connect() as long, engine.connect() as reader:
        await reader.exec_driver_sql("SET SESSION lock_wait_timeout=20")
        await long.exec_driver_sql("SELECT count(*) FROM things")  # and does not end
        migration = asyncio.create_task(apply(engine, ADD_COLUMN))
        await waiting_for_the_table(reader)
        read = await reader.exec_driver_sql("SELECT count(*) FROM things")
        await reader.rollback()
        with pytest.raises(CommandError) as refused:
            await migration

    assert read.scalar_one() == 2
    assert "has changed nothing: for 2 times 1 s it waited for a transaction" in f"{refused.value}"
    assert "information_schema.innodb_trx" in f"{refused.value}"


async def test_migration_goes_on_when_the_transaction_has_ended(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(mariadb_ddl, "LOCK_WAIT", 1)
    monkeypatch.setattr(mariadb_ddl, "PAUSE", 0)
    async with engine.connect() as long, engine.connect() as watcher:
        await long.exec_driver_sql("SELECT count(*) FROM things")
        migration = asyncio.create_task(apply(engine, ADD_COLUMN))
        await waiting_for_the_table(watcher)
        await long.rollback()

        await migration

    async with engine.connect() as connection:
        assert (await connection.exec_driver_sql("SELECT n FROM things")).all() == [(None,)] * 2


async def waiting_for_the_table(connection: AsyncConnection) -> None:
    """Until the migration does, and everybody behind it."""
    find = (
        "SELECT count(*) FROM information_schema.processlist "
        "WHERE state LIKE 'Waiting for table metadata lock' AND info LIKE 'ALTER TABLE things%%'"
    )
    async with asyncio.timeout(20):
        while not (await connection.exec_driver_sql(find)).scalar_one():
            await asyncio.sleep(0.01)
