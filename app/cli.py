"""python -m app: what an operator does by hand."""

import asyncio
import re
import sys
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from alembic.util import CommandError
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from app import accounts, schema
from app import check as checks
from app.catalogue import describe, import_catalogue
from app.database import create_engine, open_database, reason_of
from app.database_timing import DatabaseTiming
from app.email_address import normalize_email
from app.errors import Conflict, Invalid, NotFound
from app.goodbooks import WrongShape
from app.logs import configure_logs
from app.metrics import Metrics
from app.schemas.user import Role, UserCreate
from app.services.jobs import JobService
from app.settings import Settings, read_settings, settings_warnings
from app.settings_table import settings_table

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
MAX_ID = 2**63 - 1  # a BIGINT

console = Console(highlight=False)


@app.command()
def serve(
    reload: Annotated[bool, typer.Option(help="Restart when the source changes.")] = False,
    mariadb: Annotated[bool, typer.Option(help="A private MariaDB instead of SQLite.")] = False,
    jobs: Annotated[bool, typer.Option(help="With a job worker beside it.")] = True,
) -> None:
    """Run the service; start servers of its own where no URL is set."""
    # Only here: in production nothing else needs what starts private servers.
    from app.serve import serve as serve_until_stopped

    serve_until_stopped(reload=reload, mariadb=mariadb, jobs=jobs)


@app.command()
def migrate(
    to: Annotated[
        str, typer.Option(help="A revision, `head`, `base` for none, or -1 for the one before.")
    ] = "head",
) -> None:
    """Bring the database's schema to a revision, up or down."""
    asyncio.run(_migrate(to))


@app.command()
def make_migration(
    name: Annotated[str, typer.Argument(help="What it is about, such as `orders`.")],
    empty: Annotated[bool, typer.Option(help="Without operations, to write them by hand.")] = False,
) -> None:
    """Write a migration of what has changed in the models; needs no database."""
    # Only here: in production nobody writes one.
    from app.revisions.write import write_migration

    try:
        written = write_migration(name, empty=empty)
    except CommandError as error:
        raise SystemExit(f"No migration was written. {error}") from None
    if written is None:
        typer.echo("Nothing to write: the migrations make the tables of app/models/__init__.py")
        return
    typer.echo(f"{written.path.relative_to(Path.cwd())}: read it, then run: make test")
    for warning in written.warnings:
        typer.echo(f"Note: {warning}", err=True)


@app.command()
def import_books(file: Annotated[Path, typer.Argument(help="In the goodbooks format.")]) -> None:
    """Add the books of a CSV file; those of an earlier import are left as they are."""
    try:
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task(f"Importing {file.name}", total=None)
            result = asyncio.run(
                import_catalogue(
                    _command_settings().database,
                    file,
                    lambda done, total: progress.update(task, completed=done, total=total),
                )
            )
    except (WrongShape, OSError) as error:
        raise SystemExit(f"Nothing was imported: {error}") from None
    except SQLAlchemyError as error:
        raise SystemExit(
            f"The database failed; import again to go on: {reason_of(error)}"
        ) from None
    for text in describe(result.notes):
        typer.echo(f"{file}:{text}", err=True)
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
    """Make an account; the password is asked for, or is the first line of the standard input."""
    try:
        body = UserCreate(email=email, name=name or email, password=_read_password())
        user = asyncio.run(accounts.create_user(_command_settings(), body, role))
    except ValidationError as error:
        faults = (f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors())
        raise SystemExit("\n".join(faults)) from None
    except Invalid as error:
        raise SystemExit(f"{error.loc[-1]}: {error}") from None
    except Conflict as error:
        raise SystemExit(str(error)) from None
    except (SQLAlchemyError, OSError) as error:
        raise SystemExit(f"The database failed: {reason_of(error)}") from None
    typer.echo(f"Account {user.id}: {user.email}, {user.role}")


@app.command()
def set_role(
    email: Annotated[str, typer.Argument()], role: Annotated[Role, typer.Argument()]
) -> None:
    """Change what an account may do, at once."""
    try:
        email = normalize_email(email)
    except ValueError as error:
        raise SystemExit(f"email: {error}") from None
    try:
        asyncio.run(accounts.set_role(_command_settings(), email, role))
    except NotFound as error:
        raise SystemExit(str(error)) from None
    except (SQLAlchemyError, OSError) as error:
        raise SystemExit(f"The database failed: {reason_of(error)}") from None
    typer.echo(f"{email}: {role}")


@app.command()
def work(
    schedule: Annotated[bool, typer.Option(help="Be the scheduler as well.")] = False,
) -> None:
    """Do jobs until told to stop (SIGTERM)."""
    # Only here: nothing else needs what does jobs.
    from app.job_worker import work as work_until_stopped

    uvloop.run(work_until_stopped(read_settings(), schedule=schedule))


@app.command()
def demo_sellers(
    port: Annotated[int, typer.Option(min=0, max=65533, help="The first of three; 0: any.")] = 9900,
) -> None:
    """Run booksellers for GET /v1/books/{book_id}/offers, as slow and broken as they are told."""
    from app.demo_sellers import listening, run_sellers, setting

    with listening(port) as listeners:
        typer.echo(f"OFFERS_SELLERS='{setting(listeners)}'")
        run_sellers(listeners)


@app.command()
def schedule() -> None:
    """Say when repeated jobs are due, until told to stop; one process does so for all workers."""
    from app.scheduler import schedule as schedule_until_stopped

    uvloop.run(schedule_until_stopped(read_settings()))


@app.command()
def jobs(
    requeue: Annotated[
        int | None, typer.Option(min=1, max=MAX_ID, help="Try this dead job again.")
    ] = None,
    requeue_all: Annotated[bool, typer.Option(help="Try all dead jobs again.")] = False,
    discard: Annotated[
        int | None, typer.Option(min=1, max=MAX_ID, help="Forget this dead job.")
    ] = None,
) -> None:
    """Show how many jobs wait and which were given up; try those again, or forget them."""
    try:
        asyncio.run(_jobs(requeue, requeue_all, discard))
    except (SQLAlchemyError, OSError) as error:
        raise SystemExit(f"The database failed: {reason_of(error)}") from None


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


def _read_password() -> str:
    """All of the line but its end: spaces belong to a password."""
    if sys.stdin.isatty():
        password: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
        return password
    line = sys.stdin.buffer.readline()
    try:
        return re.sub(rb"\r?\n\Z", b"", line).decode()
    except UnicodeDecodeError:
        raise SystemExit("password: Is not UTF-8") from None


def _command_settings() -> Settings:
    """For a command that ends by itself; what serves or works says the warnings in its log."""
    settings = read_settings()
    for warning in settings_warnings():
        typer.echo(f"Warning: {warning}", err=True)
    if settings.database.echo:
        configure_logs(settings.log)
    return settings


async def _jobs(requeue: int | None, requeue_all: bool, discard: int | None) -> None:
    settings = _command_settings()
    timing = DatabaseTiming(Metrics(), settings.log.slow_statement, settings.database.max_waiting)
    async with open_database(settings.database, timing) as sessions:
        service = JobService(sessions, settings.jobs)
        if requeue is not None or requeue_all:
            count = await service.requeue(None if requeue_all else requeue)
            if not count:
                raise SystemExit("There is no such dead job")
            typer.echo(f"{count} jobs will be tried again")
        if discard is not None:
            if not await service.discard(discard):
                raise SystemExit("There is no such dead job")
            typer.echo(f"Job {discard} is forgotten")
        backlog = await service.backlog()
        dead = await service.dead()
    typer.echo(f"{backlog.waiting} jobs wait, the oldest for {backlog.oldest:.0f} s")
    typer.echo(f"{backlog.dead} jobs are dead")
    if dead:
        table = Table("id", "job", "key", "attempts", "dead since", "last error")
        for entry in dead:
            since = f"{entry.dead_at:%Y-%m-%d %H:%M:%S}"
            row = (entry.id, entry.job, entry.key, entry.attempts, since, entry.error)
            table.add_row(*(escape(str(cell)) for cell in row))
        console.print(table)


async def _migrate(to: str) -> None:
    engine = create_engine(_command_settings().database, "maintenance")
    try:
        before = await schema.current_revision(engine)
        await schema.migrate(engine, to)
        after = await schema.current_revision(engine)
    except (SQLAlchemyError, OSError, CommandError) as error:
        raise SystemExit(f"The migration failed: {reason_of(error)}") from None
    finally:
        await engine.dispose()
    typer.echo(f"Schema: {before or 'empty'} -> {after or 'empty'}")
