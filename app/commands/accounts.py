"""Commands for the care of accounts; app/cli.py has those that make them."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import typer
from rich.table import Table

from app.cli import app, command_settings, console, errors_as_lines, read_password
from app.schemas.accounts.audit import AuditEventRead, AuditQuery
from app.schemas.accounts.user_admin import UserAdminUpdate
from app.services.accounts.administration import AdministrationService
from app.services.accounts.audit import AuditService
from app.services.accounts.totp import TotpService
from app.settings import read_service_settings
from chassis.auth.password_rules import check_new_password
from chassis.resources import Resources, open_resources
from chassis.schemas.fields import MAX_ID
from chassis.schemas.page import MAX_LIMIT
from chassis.text.email_address import normalize_email

T = TypeVar("T")
Email = Annotated[str, typer.Argument()]


def _run(work: Callable[[Resources], Awaitable[T]]) -> T:
    async def in_resources() -> T:
        async with open_resources(command_settings()) as resources:
            return await work(resources)

    with errors_as_lines():
        return asyncio.run(in_resources())


def _address(text: str) -> str:
    try:
        return normalize_email(text)
    except ValueError as error:
        raise SystemExit(f"email: {error}") from None


@app.command()
def set_password(email: Email) -> None:
    """Give an account a new password and end its sessions.

    The password is asked for, or is the first line of standard input.
    """
    email = _address(email)
    try:
        password = check_new_password(read_password())
    except ValueError as error:
        raise SystemExit(f"password: {error}") from None

    async def work(resources: Resources) -> None:
        accounts = AdministrationService(resources)
        await accounts.set_password(await accounts.id_of(email), email, password)

    _run(work)
    typer.echo(f"{email}: new password; its sessions have ended")


@app.command()
def disable_user(email: Email) -> None:
    """End the sessions of an account, and refuse its logins."""
    _set_disabled(_address(email), disabled=True)


@app.command()
def enable_user(email: Email) -> None:
    """Allow the logins of a disabled account again."""
    _set_disabled(_address(email), disabled=False)


def _set_disabled(email: str, *, disabled: bool) -> None:
    async def work(resources: Resources) -> None:
        accounts = AdministrationService(resources)
        change = UserAdminUpdate(disabled=disabled)
        await accounts.update(None, await accounts.id_of(email), change)

    _run(work)
    typer.echo(f"{email}: {'disabled' if disabled else 'enabled'}")


@app.command()
def reset_totp(email: Email) -> None:
    """Turn the second factor of an account off, whose owner has lost it."""
    email = _address(email)

    async def work(resources: Resources) -> None:
        user_id = await AdministrationService(resources).id_of(email)
        await TotpService(resources).reset(user_id)

    _run(work)
    typer.echo(f"{email}: logins need no second factor any more")


@app.command()
def renew_totp() -> None:
    """Encrypt the secrets of all second factors with TOKENS_KEY, before an old key goes."""
    read_service_settings()  # the published key encrypts nothing
    renewed, unreadable = _run(lambda resources: TotpService(resources).renew())
    typer.echo(f"{renewed} secrets are encrypted with TOKENS_KEY")
    if unreadable:
        raise SystemExit(f"{unreadable} were encrypted with a key that is not in TOKENS_OLD_KEYS")


@app.command()
def audit(
    account: Annotated[
        str | None, typer.Option(help="Of this address, or of this id if it is deleted.")
    ] = None,
    since: Annotated[datetime | None, typer.Option(help="Not before this time, UTC.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=MAX_LIMIT, help="The latest so many.")] = 50,
) -> None:
    """Show what has changed about accounts and their sessions, the latest first."""
    account_id = None
    if account is not None and account.isdecimal():
        account_id = int(account)
        if not 0 < account_id <= MAX_ID:
            raise SystemExit(f"There is no account {account}")
    email = _address(account) if account is not None and account_id is None else None

    async def work(resources: Resources) -> list[AuditEventRead]:
        wanted = account_id
        if email is not None:
            wanted = await AdministrationService(resources).id_of(email)
        query = AuditQuery(
            limit=limit, account_id=wanted, since=since and since.replace(tzinfo=UTC)
        )
        return (await AuditService(resources).page(query)).items

    table = Table("time", "event", "account", "by", "session", "client", "request", "details")
    for each in _run(work):
        details = ", ".join(f"{name}: {value}" for name, value in each.details.items())
        ids = (each.account_id, each.actor_id or "command", each.session_id or "")
        rest = (each.client or "", each.request_id or "", details)
        time = f"{each.created_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(time, each.event, *map(str, (*ids, *rest)))
    console.print(table)
