"""`python -m app serve`: everything that the service needs, then the service."""

import asyncio
import multiprocessing
import os
import secrets
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn
from urllib.parse import quote

import typer
from alembic.util import CommandError
from pydantic import SecretStr
from sqlalchemy.exc import SQLAlchemyError

from chassis.auth.settings import DEVELOPMENT_KEY
from chassis.database.engines import create_engine, reason_of
from chassis.development import supervisor
from chassis.development.private_servers import ServerUnavailable, embedded_valkey, private_mariadb
from chassis.migrations import schema
from chassis.migrations.revision import BrokenMigrations, read_migrations, read_revisions
from chassis.service_settings import ChassisSettings
from chassis.settings.sources import Sources, read, unused_variables

ROOT = Path(__file__).parent.parent.parent
VAR = ROOT / "var"
DEVELOPMENT_LIMIT = 100_000


class GivenUrls(Sources):
    """What is set, read before the settings require it."""

    environment: Literal["development", "production"] = "development"
    database_url: SecretStr | None = None
    redis_url: SecretStr | None = None
    mail_url: SecretStr | None = None
    files_url: str | None = None
    tokens_key: SecretStr | None = None


class Filled(NamedTuple):
    """A database with a service's sample data."""

    lines: list[str]  # to print
    account: tuple[str, str] | None  # address and password of one that can log in


class Sample(NamedTuple):
    """A service's sample data and servers. `start` returns lines to print."""

    package: str  # has `main.create_app`, and runs as a command
    path: str  # of a first response to look at
    start: Callable[[ExitStack], list[str]]  # starts servers, before the settings are read
    fill: Callable[[Any], Coroutine[Any, Any, Filled]]  # fills an empty database


def serve(
    service: str,
    sample: Sample,
    read_settings: Callable[[], ChassisSettings],
    *,
    reload: bool,
    mariadb: bool,
    jobs: bool,
) -> None:
    """Run until a signal or the end of the service; stop all that was started.

    `read_settings` is called after the missing variables were set.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with ExitStack() as stack:
            given = read(GivenUrls)
            used = list(_start_servers(service, stack, given, mariadb))
            if given.environment == "development":
                used += sample.start(stack)
            settings = read_settings()
            if reload:
                # Without --reload, Gunicorn's master logs them.
                used += unused_variables(type(settings))
                # uvicorn has one port: `/metrics` is there too.
                settings.metrics.port = None
                os.environ["METRICS_PORT"] = ""
            for port in settings.ports:
                _require_free(settings, port)
            if settings.environment == "development":
                asyncio.run(_migrate(settings))
                filled = asyncio.run(sample.fill(settings))
                used += filled.lines
                if filled.account is not None:
                    os.environ["WEB_DEVELOPMENT_ACCOUNT"] = " ".join(filled.account)
                used += _loosen_limits(settings)
            url = f"http://{settings.address(settings.port)}"
            used.append(f"Start at   {url}/")
            documented = f", documented at {url}/docs" if settings.web.docs else ""
            used.append(f"API        {url}{sample.path}{documented}")
            if settings.environment == "development":
                used.append(f"Metrics    http://{settings.address(settings.ports[-1])}/metrics")
            used.append("Stop       with Ctrl-C")
            typer.echo("\n".join(used))
            package = sample.package
            command = (
                supervisor.uvicorn(package, settings) if reload else supervisor.gunicorn(settings)
            )
            code = supervisor.run(command, supervisor.job_worker(package, reload) if jobs else None)
    except KeyboardInterrupt:
        code = 0
    except (ServerUnavailable, BrokenMigrations) as error:
        raise SystemExit(str(error)) from None
    except OSError as error:
        raise SystemExit(f"Cannot write to {error.filename}: {error.strerror}") from None
    except (SQLAlchemyError, CommandError) as error:
        raise SystemExit(f"The database failed: {reason_of(error)}") from None
    raise SystemExit(code)


def _interrupt(*_: object) -> NoReturn:
    if multiprocessing.parent_process() is not None:
        os._exit(0)  # a child that has not set its own signal handlers yet
    raise KeyboardInterrupt


def _start_servers(
    service: str, stack: ExitStack, given: GivenUrls, mariadb: bool
) -> Iterator[str]:
    """Start what is not set; in production the settings refuse to do without."""
    if mariadb and given.database_url:
        raise SystemExit("DATABASE_URL is set: unset it, or do without the private MariaDB")
    if given.environment == "production":
        return
    VAR.mkdir(exist_ok=True)
    if mariadb:
        server = stack.enter_context(private_mariadb(VAR / "mariadb", VAR, service, typer.echo))
        os.environ["DATABASE_URL"] = server.url
        yield f"Database   private MariaDB in {VAR / 'mariadb'}: {server.source}"
    elif not given.database_url:
        file = VAR / f"{service}.db"
        os.environ["DATABASE_URL"] = f"sqlite+aiosqlite:///{file}"
        yield f"Database   SQLite in {file}, as DATABASE_URL is not set"
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
    """A random one, made at the first run."""
    if not path.exists():
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        with open(new, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(secrets.token_urlsafe(32))
        new.replace(path)
    return path.read_text()


def _require_free(settings: ChassisSettings, port: int) -> None:
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


async def _migrate(settings: ChassisSettings) -> None:
    engine = create_engine(settings.database, "maintenance")
    try:
        migrations = read_migrations()
        async with engine.connect() as connection:
            shortfall = migrations.shortfall(await read_revisions(connection))
        if shortfall is not None:
            await schema.migrate(engine)
    finally:
        await engine.dispose()


def _loosen_limits(settings: ChassisSettings) -> list[str]:
    """All local requests are one client's, and a load test is often the first thing to try."""
    if settings.limits.model_fields_set:
        return []
    for name in type(settings.limits).model_fields:
        if name.endswith(("_rate", "_burst")):
            os.environ[f"LIMITS_{name.upper()}"] = str(DEVELOPMENT_LIMIT)
    return [f"Limits     {DEVELOPMENT_LIMIT} requests/s for a client, as LIMITS_* is not set"]
