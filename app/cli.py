"""python -m app: what an operator does by hand."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer
from alembic.util import CommandError
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from app import accounts, schema
from app import check as checks
from app.catalogue import import_catalogue
from app.database import create_engine
from app.errors import Conflict, NotFound
from app.goodbooks import WrongShape
from app.schemas.user import Role, UserCreate
from app.settings import read_settings
from app.settings_table import settings_table

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console(highlight=False)


@app.command()
def serve(
    reload: Annotated[bool, typer.Option(help="Restart when the source changes.")] = False,
    mariadb: Annotated[bool, typer.Option(help="A private MariaDB instead of SQLite.")] = False,
) -> None:
    """Run the service; start servers of its own where no URL is set."""
    # Only here: in production nothing else needs what starts private servers.
    from app.serve import serve as serve_until_stopped

    serve_until_stopped(reload=reload, mariadb=mariadb)


@app.command()
def migrate(
    to: Annotated[str, typer.Option(help="A revision, `head`, or `base` for none.")] = "head",
) -> None:
    """Bring the database's schema to a revision, up or down."""
    asyncio.run(_migrate(to))


@app.command()
def import_books(file: Annotated[Path, typer.Argument(help="In the goodbooks format.")]) -> None:
    """Add the books of a CSV file; those of an earlier import are left as they are."""
    try:
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task(f"Importing {file.name}", total=None)
            result = asyncio.run(
                import_catalogue(
                    read_settings().database,
                    file,
                    lambda done, total: progress.update(task, completed=done, total=total),
                )
            )
    except (WrongShape, OSError) as error:
        raise SystemExit(f"Nothing was imported: {error}") from None
    except SQLAlchemyError as error:
        raise SystemExit(f"The database failed; import again to go on: {error}") from None
    for row in result.refused:
        typer.echo(f"{file}:{row.line}: {row.reason}", err=True)
    typer.echo(
        f"{result.added} books added, {result.known} known already, {len(result.refused)} refused"
    )
    if result.refused:
        raise SystemExit(1)


@app.command()
def create_user(
    email: Annotated[str, typer.Argument()],
    role: Annotated[Role, typer.Option()] = Role.READER,
    name: Annotated[str, typer.Option(help="As others see it; else the e-mail address.")] = "",
) -> None:
    """Make an account; the password is asked for, or read from the standard input."""
    if sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().rstrip("\n")
    try:
        body = UserCreate(email=email, name=name or email, password=password)
        user = asyncio.run(accounts.create_user(read_settings(), body, role))
    except ValidationError as error:
        faults = (f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors())
        raise SystemExit("\n".join(faults)) from None
    except Conflict as error:
        raise SystemExit(str(error)) from None
    except (SQLAlchemyError, OSError) as error:
        raise SystemExit(f"The database failed: {getattr(error, 'orig', error)}") from None
    typer.echo(f"Account {user.id}: {user.email}, {user.role}")


@app.command()
def set_role(
    email: Annotated[str, typer.Argument()], role: Annotated[Role, typer.Argument()]
) -> None:
    """Change what an account may do, at once."""
    try:
        asyncio.run(accounts.set_role(read_settings(), email, role))
    except NotFound as error:
        raise SystemExit(str(error)) from None
    except (SQLAlchemyError, OSError) as error:
        raise SystemExit(f"The database failed: {getattr(error, 'orig', error)}") from None
    typer.echo(f"{email}: {role}")


@app.command()
def check() -> None:
    """Verify the settings, both servers, the schema and the connection budget."""
    findings = asyncio.run(checks.run_checks(read_settings()))
    table = Table("check", "result", "detail")
    for finding in findings:
        result = "[green]ok" if finding.ok else "[red]failed"
        table.add_row(finding.name, result, finding.detail)
    console.print(table)
    if not all(finding.ok for finding in findings):
        raise SystemExit(1)


@app.command()
def settings() -> None:
    """Print every setting, its default and its meaning as a Markdown table."""
    typer.echo(settings_table())


async def _migrate(to: str) -> None:
    engine = create_engine(read_settings().database, "maintenance")
    try:
        before = await schema.current_revision(engine)
        await schema.migrate(engine, to)
        after = await schema.current_revision(engine)
    except (SQLAlchemyError, OSError, CommandError) as error:
        raise SystemExit(f"The migration failed: {getattr(error, 'orig', error)}") from None
    finally:
        await engine.dispose()
    typer.echo(f"Schema: {before or 'empty'} -> {after or 'empty'}")
