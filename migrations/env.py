"""Runs the migrations on the database of DATABASE_URL, or on the connection that it is given."""

import asyncio

from alembic import context
from sqlalchemy import Connection, text

from app.database import create_engine
from app.models import Base
from app.settings import read_settings

LOCK_WAIT = 60  # s


def compared(_: object, name: str | None, kind: str, *__: object) -> bool:
    """FTS5 keeps its words in tables of its own, and SQLite has no FULLTEXT index."""
    sqlite = context.get_bind().dialect.name == "sqlite"
    own = f"{name}".startswith("book_search")
    return not (sqlite and (own or (kind == "index" and name == "ix_books_words")))


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
    )
    wait_for_others(connection)
    with context.begin_transaction():
        context.run_migrations()


async def main() -> None:
    engine = create_engine(read_settings().database, "maintenance")
    async with engine.begin() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


if (given := context.config.attributes.get("connection")) is not None:
    migrate(given)
else:
    asyncio.run(main())
