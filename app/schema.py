"""The schema's revision: what the database has, what this code needs, and how to get there."""

import io
import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

# It logs what MariaDB notes, such as that a primary key's name is not kept.
logging.getLogger("asyncmy").setLevel(logging.ERROR)

MIGRATIONS = Path(__file__).parent.parent / "migrations"


async def migrate(engine: AsyncEngine, revision: str = "head") -> None:
    """Go up or down to `revision`. Raises Alembic's CommandError, and what the database raises."""

    def run(connection: Connection) -> None:
        current = MigrationContext.configure(connection).get_current_revision()
        go = command.downgrade if _is_below(revision, current) else command.upgrade
        go(_config(connection), revision)

    try:
        async with engine.begin() as connection:
            await connection.run_sync(run)
    except RevisionError as error:
        raise CommandError(f"the database is ahead of this code, or not ours: {error}") from error


async def check(engine: AsyncEngine) -> None:
    """Raises Alembic's CommandError where the database differs from the models."""
    async with engine.begin() as connection:
        await connection.run_sync(lambda sync: command.check(_config(sync)))


def _config(connection: Connection) -> Config:
    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


async def current_revision(engine: AsyncEngine) -> str | None:
    async with engine.connect() as connection:
        return await connection.run_sync(
            lambda sync: MigrationContext.configure(sync).get_current_revision()
        )


def needed_revision() -> str | None:
    return ScriptDirectory(str(MIGRATIONS)).get_current_head()


def _is_below(revision: str, current: str | None) -> bool:
    if revision == "base" or current is None:
        return revision == "base"
    scripts = ScriptDirectory(str(MIGRATIONS))
    above = {script.revision for script in scripts.iterate_revisions(current, "base")}
    wanted = scripts.get_revision(revision)
    return wanted is not None and wanted.revision != current and wanted.revision in above
