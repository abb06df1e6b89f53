"""Migrating a database, and its current revision, with Alembic."""

import io
import logging
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis.migrations import mariadb_ddl  # registers its class
from chassis.migrations import sqlite_ddl as sqlite_ddl  # the same
from chassis.migrations.online import may_lock
from chassis.migrations.revision import MIGRATIONS, BrokenMigrations, read_migrations

# It logs MariaDB's notes, such as that the name of a primary key is ignored.
logging.getLogger("asyncmy").setLevel(logging.ERROR)


async def migrate(engine: AsyncEngine, revision: str = "head") -> None:
    """Go up or down to `revision`. Raises Alembic's CommandError, and what the database raises."""

    def run(connection: Connection) -> None:
        current = MigrationContext.configure(connection).get_current_revision()
        if not _is_below(revision, current):
            command.upgrade(alembic_config(connection), revision)
            return
        with may_lock("no deployment goes down"):
            command.downgrade(alembic_config(connection), revision)

    load_scripts()
    if not revision:
        raise CommandError("no revision is given; the newest is head")
    try:
        async with migration_transaction(engine) as connection:
            await connection.run_sync(run)
    except RevisionError as error:
        raise CommandError(f"the database is ahead of this code, or not ours: {error}") from error


@asynccontextmanager
async def migration_transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction in which SQLite may rebuild a table, and MariaDB waits for one only briefly.

    To alter a table, Alembic copies it and drops the original. With foreign keys enforced, that
    would delete the rows that refer to it, so they are checked at the end instead. SQLite
    ignores the switch inside a transaction.
    """
    async with engine.connect() as connection:
        sqlite = connection.dialect.name == "sqlite"
        if sqlite:
            raw = await connection.get_raw_connection()
            await raw.driver_connection.execute("PRAGMA foreign_keys=OFF")  # type: ignore[union-attr]
        async with connection.begin():
            if not sqlite:
                wait = f"SET SESSION lock_wait_timeout={mariadb_ddl.LOCK_WAIT}"
                await connection.exec_driver_sql(wait)
            yield connection
            if sqlite:
                await _require_foreign_keys(connection)


async def _require_foreign_keys(connection: AsyncConnection) -> None:
    found = await connection.exec_driver_sql("PRAGMA foreign_key_check")
    if (row := found.mappings().first()) is not None:
        tables = f"{row['table']} would refer to rows of {row['parent']}"
        raise CommandError(f"rows of {tables} that do not exist")


async def check(engine: AsyncEngine) -> None:
    """Raises Alembic's CommandError where the database differs from the models."""
    async with engine.begin() as connection:
        await connection.run_sync(lambda sync: command.check(alembic_config(sync)))


def alembic_config(connection: Connection) -> Config:
    """For a command of Alembic on this connection, which prints nothing."""
    config = Config(stdout=io.StringIO(), cmd_opts=Namespace(quiet=True))
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


async def current_revision(engine: AsyncEngine) -> str | None:
    async with engine.connect() as connection:
        return await connection.run_sync(
            lambda sync: MigrationContext.configure(sync).get_current_revision()
        )


def load_scripts() -> ScriptDirectory:
    """Raises CommandError where the migrations do not form one line with one end."""
    try:
        read_migrations()
    except BrokenMigrations as error:
        raise CommandError(str(error)) from None
    return ScriptDirectory(str(MIGRATIONS))


def _is_below(revision: str, current: str | None) -> bool:
    if revision == "base" or current is None or revision.startswith(("+", "-")):
        return revision == "base" or revision.startswith("-")
    scripts = load_scripts()
    above = {script.revision for script in scripts.iterate_revisions(current, "base")}
    wanted = scripts.get_revision(revision)
    return wanted is not None and wanted.revision != current and wanted.revision in above
