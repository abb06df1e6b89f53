"""`python -m app`: the commands of an operator."""

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, TypeVar

import typer
import uvloop
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from app.schemas.user import Role, UserCreate
from app.services.accounts.users import UserService
from app.settings import Settings, read_settings, settings_warnings
from chassis import preflight
from chassis.database.engines import reason_of
from chassis.errors import AppError, Invalid
from chassis.job_worker.commands import care_for_jobs
from chassis.migrations.revision import BrokenMigrations
from chassis.resources import open_resources
from chassis.schemas.fields import MAX_ID
from chassis.settings.docs_table import settings_table
from chassis.telemetry.logs import configure_logs
from chassis.text.email_address import normalize_email

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console(highlight=False)

T = TypeVar("T")


@contextmanager
def errors_as_lines() -> Iterator[None]:
    """Exit with a line in place of a traceback."""
    try:
        yield
    except Invalid as error:
        raise SystemExit(f"{error.loc[-1]}: {error}") from None
    except AppError as error:
        raise SystemExit(str(error)) from None
    except (SQLAlchemyError, OSError) as error:
        raise SystemExit(f"The database failed: {reason_of(error)}") from None


@app.command()
def migrate(
    to: Annotated[
        str, typer.Option(help="A revision, `head`, `base` for none, or -1 for the one before.")
    ] = "head",
    allow_newer: Annotated[
        bool, typer.Option(help="Leave a schema that is newer than this code, as after a rollback.")
    ] = False,
) -> None:
    """Bring the database's schema to a revision, up or down."""
    # Only here: nothing else needs Alembic, which takes long to import.
    from chassis.migrations.commands import migrate_by_hand

    asyncio.run(migrate_by_hand(command_settings().database, to, allow_newer=allow_newer))


async def _in_users(work: Callable[[UserService], Awaitable[T]]) -> T:
    async with open_resources(command_settings()) as resources:
        return await work(UserService(resources))


def read_password() -> str:
    """The line without its end; spaces are part of a password."""
    if sys.stdin.isatty():
        password: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
        return password
    line = sys.stdin.buffer.readline()
    try:
        return re.sub(rb"\r?\n\Z", b"", line).decode()
    except UnicodeDecodeError:
        raise SystemExit("password: Is not UTF-8") from None


@app.command()
def create_user(
    email: Annotated[str, typer.Argument()],
    role: Annotated[Role, typer.Option()] = Role.READER,
    name: Annotated[str, typer.Option(help="Shown to others; else the e-mail address.")] = "",
) -> None:
    """Create an account; the password is asked for, or is the first line of standard input."""
    try:
        body = UserCreate(email=email, name=name or email, password=read_password())
    except ValidationError as error:
        faults = (f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors())
        raise SystemExit("\n".join(faults)) from None
    with errors_as_lines():
        user = asyncio.run(_in_users(lambda users: users.create(body, role, verified=True)))
    typer.echo(f"Account {user.id}: {user.email}, {user.role}")


@app.command()
def set_role(
    email: Annotated[str, typer.Argument()], role: Annotated[Role, typer.Argument()]
) -> None:
    """Change the role of an account, at once."""
    try:
        email = normalize_email(email)
    except ValueError as error:
        raise SystemExit(f"email: {error}") from None
    with errors_as_lines():
        asyncio.run(_in_users(lambda users: users.set_role(email, role)))
    typer.echo(f"{email}: {role}")


@app.command()
def work() -> None:
    """Run jobs until told to stop (SIGTERM)."""
    # Only here: nothing else needs what runs jobs.
    from app.jobs import REGISTRY
    from chassis.job_worker.run import work as work_until_stopped

    uvloop.run(work_until_stopped(read_settings(), REGISTRY))


@app.command()
def jobs(
    requeue: Annotated[
        int | None, typer.Option(min=1, max=MAX_ID, help="Try this dead job again.")
    ] = None,
    requeue_all: Annotated[bool, typer.Option(help="Try all dead jobs again.")] = False,
    discard: Annotated[
        int | None, typer.Option(min=1, max=MAX_ID, help="Delete this dead job.")
    ] = None,
) -> None:
    """Show how many jobs wait, and the dead ones; try these again, or delete them."""
    with errors_as_lines():
        asyncio.run(
            care_for_jobs(
                command_settings(),
                console,
                requeue=requeue,
                requeue_all=requeue_all,
                discard=discard,
            )
        )


@app.command()
def shell() -> None:
    """Open a Python prompt that understands `await`, with sessions, cache, models and services."""
    # Only here: nothing else needs all models and services.
    from app import dependencies, models
    from app.sample import dependencies as sample  # sample
    from chassis.shell import open_shell

    asked_for = {**vars(dependencies)}
    asked_for |= vars(sample)  # sample
    services = {name: each for name, each in asked_for.items() if name.endswith("Service")}
    open_shell(command_settings(), {**services, **vars(models)})


@app.command()
def check() -> None:
    """Verify the settings, both servers, the schema and the connection budget."""
    findings = asyncio.run(preflight.run_checks(read_settings()))
    table = Table("check", "result", "detail")
    for finding in findings:
        result = "[green]ok" if finding.ok else "[red]failed"
        table.add_row(finding.name, result, finding.detail)
    console.print(table)
    if not all(finding.ok for finding in findings):
        raise SystemExit(1)


@app.command()
def await_schema() -> None:
    """Wait until the database has the schema that this code needs, as before a pod starts."""
    try:
        asyncio.run(preflight.await_schema(command_settings(), partial(typer.echo, err=True)))
    except BrokenMigrations as error:
        raise SystemExit(str(error)) from None


@app.command()
def settings() -> None:
    """Print every setting, its default and its meaning as a Markdown table."""
    typer.echo(settings_table(Settings))


def command_settings() -> Settings:
    """For a command that ends by itself; servers and workers write the warnings to their logs."""
    settings = read_settings()
    for warning in settings_warnings():
        typer.echo(f"Warning: {warning}", err=True)
    if settings.database.echo:
        configure_logs(settings.log)
    return settings
