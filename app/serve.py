"""`python -m app serve`: everything that the service needs, then the service."""

import asyncio
import multiprocessing
import os
import secrets
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, NoReturn
from urllib.parse import quote

import typer
from alembic.util import CommandError
from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app import accounts, processes, schema
from app.catalogue import import_catalogue
from app.database import create_engine, reason_of
from app.demo_sellers import addresses, listening, run_sellers, setting
from app.models import Book, User
from app.schema_revision import BrokenMigrations, read_migrations, read_revisions
from app.schemas.user import Role, UserCreate
from app.servers.private import ServerUnavailable, embedded_valkey, private_mariadb
from app.servers.process import end_with_parent
from app.settings import DEVELOPMENT_KEY, Settings, read_service_settings, settings_warnings
from app.settings_sources import Sources, read

ROOT = Path(__file__).parent.parent
VAR = ROOT / "var"
SAMPLE = ROOT / "data" / "classics.csv"
DEVELOPMENT_LIMIT = 100_000
EDITOR = UserCreate(email="editor@example.com", name="Editor", password="development")  # noqa: S106


class GivenUrls(Sources):
    """Which servers the user brings along, before the settings insist on them."""

    environment: Literal["development", "production"] = "development"
    database_url: SecretStr | None = None
    redis_url: SecretStr | None = None
    mail_url: SecretStr | None = None
    files_url: str | None = None
    offers_sellers: str | None = None
    tokens_key: SecretStr | None = None


def serve(*, reload: bool, mariadb: bool, jobs: bool) -> None:
    """Run until a signal or the end of the service; stop all that was started."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with ExitStack() as stack:
            given = read(GivenUrls)
            used = list(_start_servers(stack, given, mariadb))
            if given.environment == "development" and not given.offers_sellers:
                used.append(_start_sellers(stack))
            settings = read_service_settings()
            if reload:
                used += settings_warnings()  # without it, the master of the workers logs them
                # It has one worker and one port; what would be on another is there too.
                settings.metrics.port = None
                os.environ["METRICS_PORT"] = ""
            for port in settings.ports:
                _require_free(settings, port)
            if settings.environment == "development":
                used += asyncio.run(_prepare_database(settings))
                used += _loosen_limits(settings)
            url = f"http://{settings.address(settings.port)}"
            used.append(f"API        {url}/v1/books, documented at {url}/docs")
            if settings.environment == "development":
                used.append(f"Metrics    http://{settings.address(settings.ports[-1])}/metrics")
            used.append("Stop       with Ctrl-C")
            typer.echo("\n".join(used))
            command = processes.uvicorn(settings) if reload else processes.gunicorn(settings)
            code = processes.run(command, processes.job_worker(reload) if jobs else None)
    except KeyboardInterrupt:
        code = 0
    except ServerUnavailable as error:
        raise SystemExit(str(error)) from None
    except OSError as error:
        raise SystemExit(f"Cannot write to {error.filename}: {error.strerror}") from None
    except BrokenMigrations as error:
        raise SystemExit(str(error)) from None
    except (SQLAlchemyError, CommandError) as error:
        raise SystemExit(f"The database failed: {reason_of(error)}") from None
    raise SystemExit(code)


def _interrupt(*_: object) -> NoReturn:
    if multiprocessing.parent_process() is not None:
        os._exit(0)  # a process of ours that had no time yet to do as it likes with signals
    raise KeyboardInterrupt


def _start_servers(stack: ExitStack, given: GivenUrls, mariadb: bool) -> Iterator[str]:
    """Fill in what is not set, but in production leave that to the settings' own error."""
    if mariadb and given.database_url:
        raise SystemExit("DATABASE_URL is set: unset it, or do without the private MariaDB")
    if given.environment == "production":
        return
    VAR.mkdir(exist_ok=True)
    if mariadb:
        server = stack.enter_context(private_mariadb(VAR / "mariadb", VAR, say=typer.echo))
        os.environ["DATABASE_URL"] = server.url
        yield f"Database   private MariaDB in {VAR / 'mariadb'}: {server.source}"
    elif not given.database_url:
        os.environ["DATABASE_URL"] = f"sqlite+aiosqlite:///{VAR / 'books.db'}"
        yield f"Database   SQLite in {VAR / 'books.db'}, as DATABASE_URL is not set"
    if not given.redis_url:
        server = stack.enter_context(embedded_valkey(VAR / "valkey"))
        os.environ["REDIS_URL"] = server.url
        yield f"Cache      embedded Valkey in {VAR / 'valkey'}, as REDIS_URL is not set"
    if not given.mail_url:
        os.environ["MAIL_URL"] = f"file://{quote(str(VAR / 'mail'))}"
        yield f"Mail       .eml files in {VAR / 'mail'}, as MAIL_URL is not set"
    if not given.files_url:
        os.environ["FILES_URL"] = f"file://{quote(str(VAR / 'files'))}"
        yield f"Files      in {VAR / 'files'}, as FILES_URL is not set"
    if not given.tokens_key or given.tokens_key.get_secret_value() == DEVELOPMENT_KEY:
        os.environ["TOKENS_KEY"] = _secret_in(VAR / "tokens_key")
        yield f"Tokens     signed with the key in {VAR / 'tokens_key'}, as TOKENS_KEY is not set"


def _secret_in(path: Path) -> str:
    """Made at the first run, and the same at all later ones."""
    if not path.exists():
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        with open(new, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(secrets.token_urlsafe(32))
        new.replace(path)
    return path.read_text()


def _start_sellers(stack: ExitStack) -> str:
    with listening() as listeners:
        sellers = multiprocessing.get_context("fork").Process(target=_sell, args=(listeners,))
        sellers.start()
        stack.callback(sellers.join)
        stack.callback(sellers.terminate)
        os.environ["OFFERS_SELLERS"] = setting(listeners)
        return (
            f"Sellers    {' '.join(addresses(listeners))} as a demo, as OFFERS_SELLERS is not set"
        )


def _sell(listeners: list[socket.socket]) -> None:
    os.setsid()
    end_with_parent()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # uvicorn raises it again in the end
    run_sellers(listeners)


def _require_free(settings: Settings, port: int) -> None:
    family = socket.AF_INET6 if ":" in settings.bind else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.bind, port))
        except OSError as error:
            variable = "PORT" if port == settings.port else "METRICS_PORT"
            raise SystemExit(
                f"Cannot listen on {settings.address(port)}: {error.strerror}. "
                f"Set {variable} or BIND to something else, for example: make run {variable}=8001"
            ) from None


async def _prepare_database(settings: Settings) -> list[str]:
    engine = create_engine(settings.database, "maintenance")
    try:
        migrations = read_migrations()
        async with engine.connect() as connection:
            lack = migrations.lack(await read_revisions(connection))
        if lack is not None:
            await schema.migrate(engine)
        async with engine.connect() as connection:
            has_books = await connection.scalar(select(Book.id).limit(1)) is not None
            has_users = await connection.scalar(select(User.id).limit(1)) is not None
    finally:
        await engine.dispose()
    said = []
    if not has_books:
        imported = await import_catalogue(settings.database, SAMPLE, lambda done, total: None)
        said.append(f"Catalogue  {imported.added} books of {SAMPLE.name}, as there was none")
    if not has_users:
        await accounts.create_user(settings, EDITOR, Role.EDITOR, any_password=True)
        said.append(f"Editor     {EDITOR.email}, password {EDITOR.password}, as there was nobody")
    return said


def _loosen_limits(settings: Settings) -> list[str]:
    """Who tries a service out is one client, and the first thing he tries is a load test."""
    if settings.limits.model_fields_set:
        return []
    for policy in ("READS", "WRITES", "ADDRESS", "LOGIN"):
        for number in ("RATE", "BURST"):
            os.environ[f"LIMITS_{policy}_{number}"] = str(DEVELOPMENT_LIMIT)
    return [f"Limits     {DEVELOPMENT_LIMIT} requests/s for a client, as LIMITS_* is not set"]
