"""`python -m app migrate`."""

import typer
from alembic.util import CommandError
from sqlalchemy.exc import SQLAlchemyError

from chassis.database.engines import create_engine, reason_of
from chassis.database.settings import DatabaseSettings
from chassis.migrations import schema
from chassis.migrations.revision import BrokenMigrations, read_migrations


async def migrate_by_hand(settings: DatabaseSettings, to: str, *, allow_newer: bool) -> None:
    """Prints the revisions before and after; SystemExit where it fails."""
    engine = create_engine(settings, "maintenance")
    try:
        before = await schema.current_revision(engine)
        if allow_newer and before and read_migrations().is_newer({before}):
            typer.echo(f"Schema: {before}, newer than this code needs; left as it is")
            return
        await schema.migrate(engine, to)
        after = await schema.current_revision(engine)
    except (SQLAlchemyError, OSError, CommandError, BrokenMigrations) as error:
        raise SystemExit(f"The migration failed: {reason_of(error)}") from None
    finally:
        await engine.dispose()
    typer.echo(f"Schema: {before or 'empty'} -> {after or 'empty'}")
