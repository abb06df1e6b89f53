"""Runs the migrations on the database of DATABASE_URL, or on the connection that it is given."""

import asyncio
import re
from argparse import Namespace

from alembic import command, context
from sqlalchemy import Connection, text
from sqlalchemy import create_engine as create_sync_engine
from sqlalchemy.exc import SQLAlchemyError

import app.models  # noqa: F401 - declares all tables
from chassis.database.columns import Base
from chassis.database.engines import create_engine, reason_of
from chassis.database.settings import read_database_settings
from chassis.migrations.schema import migration_transaction

LOCK_WAIT = 60  # s


def compared(_: object, name: str | None, kind: str, *__: object) -> bool:
    """FTS5 keeps its words in tables of its own, and SQLite has no FULLTEXT index."""
    sqlite = context.get_bind().dialect.name == "sqlite"
    own = re.search(r"_search(_|$)", f"{name}") or (
        kind == "index" and f"{name}".endswith("_words")
    )
    return not (sqlite and own)


def wait_for_others(connection: Connection) -> None:
    """MariaDB commits each DDL statement by itself: two migrations at once would collide.

    The lock ends with the connection, after the commit: released before, it would let the
    next one in while the new revision is not yet to be seen.
    """
    if connection.dialect.name == "sqlite":
        return  # BEGIN IMMEDIATE has locked the whole database
    lock = {"lock": f"migrate {connection.engine.url.database}"[-64:], "wait": LOCK_WAIT}
    if not connection.scalar(text("SELECT GET_LOCK(:lock, :wait)"), lock):
        raise SystemExit("Another migration is running on this database")


def migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        include_object=compared,
        render_as_batch=connection.dialect.name == "sqlite",
        **context.config.attributes.get("options", {}),
    )
    wait_for_others(connection)
    with context.begin_transaction():
        context.run_migrations()


async def main() -> None:
    engine = create_engine(read_database_settings(), "maintenance")
    try:
        async with migration_transaction(engine) as connection:
            await connection.run_sync(migrate)
    except (SQLAlchemyError, OSError) as error:
        raise SystemExit(f"The database failed: {reason_of(error)}") from None
    finally:
        await engine.dispose()


def reads_only_files(options: Namespace) -> bool:
    """`alembic history`, unless it is to show where the database is."""
    is_history = getattr(options, "cmd", [None])[0] is command.history
    return is_history and not options.indicate_current and "current" not in f"{options.rev_range}"


options = context.config.cmd_opts or Namespace()
if (given := context.config.attributes.get("connection")) is not None:
    migrate(given)
elif getattr(options, "cmd", [None])[0] is command.revision:
    raise SystemExit("Run: make migration NAME=orders")
elif reads_only_files(options):
    with create_sync_engine("sqlite://").connect() as connection:
        migrate(connection)
else:
    asyncio.run(main())
