"""`python -m app serve`: everything that the service needs, then the service."""

import asyncio
import multiprocessing
import os
import runpy
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, NoReturn

import typer
from alembic.util import CommandError
from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app import accounts, schema
from app.catalogue import import_catalogue
from app.database import create_engine
from app.models import Book, User
from app.schemas.user import Role, UserCreate
from app.servers.private import ServerUnavailable, embedded_valkey, private_mariadb
from app.servers.process import end_with_parent
from app.settings import Settings, Sources, read, read_settings

ROOT = Path(__file__).parent.parent
VAR = ROOT / "var"
SAMPLE = ROOT / "data" / "classics.csv"
DEVELOPMENT_LIMIT = 100_000
EDITOR = UserCreate(email="editor@example.com", name="Editor", password="development")  # noqa: S106
MAX_WORKERS = 4  # unless WEB_CONCURRENCY says more: a private MariaDB takes their connections


class GivenUrls(Sources):
    """Which servers the user brings along, before the settings insist on them."""

    environment: Literal["development", "production"] = "development"
    database_url: SecretStr | None = None
    redis_url: SecretStr | None = None


def serve(*, reload: bool, mariadb: bool) -> None:
    """Run until a signal or the end of the service; stop all that was started."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with ExitStack() as stack:
            used = list(_start_servers(stack, read(GivenUrls), mariadb))
            settings = read_settings()
            if reload:
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
            code = _run(_uvicorn(settings) if reload else _gunicorn(settings))
    except KeyboardInterrupt:
        code = 0
    except ServerUnavailable as error:
        raise SystemExit(str(error)) from None
    except OSError as error:
        raise SystemExit(f"Cannot write to {error.filename}: {error.strerror}") from None
    except (SQLAlchemyError, CommandError) as error:
        raise SystemExit(f"The database failed: {getattr(error, 'orig', error)}") from None
    raise SystemExit(code)


def _interrupt(*_: object) -> NoReturn:
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
        if await schema.current_revision(engine) != schema.needed_revision():
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
        await accounts.create_user(settings, EDITOR, Role.EDITOR)
        said.append(f"Editor     {EDITOR.email}, password {EDITOR.password}, as there was nobody")
    return said


def _loosen_limits(settings: Settings) -> list[str]:
    """Who tries a service out is one client, and the first thing he tries is a load test."""
    if settings.limits.model_fields_set:
        return []
    for policy in ("READS", "WRITES", "LOGIN"):
        for number in ("RATE", "BURST"):
            os.environ[f"LIMITS_{policy}_{number}"] = str(DEVELOPMENT_LIMIT)
    return [f"Limits     {DEVELOPMENT_LIMIT} requests/s for a client, as LIMITS_* is not set"]


def _gunicorn(settings: Settings) -> list[str]:
    if "concurrency" not in settings.web.model_fields_set:
        os.environ["WEB_CONCURRENCY"] = str(min(settings.web.concurrency, MAX_WORKERS))
    return ["gunicorn", "--config", str(ROOT / "gunicorn_config.py")]


def _uvicorn(settings: Settings) -> list[str]:
    return [
        *("uvicorn", "app.main:create_app", "--factory", "--no-access-log"),
        *("--reload", "--reload-dir", str(ROOT / "app")),
        *("--host", settings.bind, "--port", str(settings.port)),
        *("--timeout-keep-alive", str(settings.web.keepalive)),
        *("--timeout-graceful-shutdown", "5"),
    ]


def _run(command: list[str]) -> int:
    # Forked: it finds our modules imported, which is half of what it takes to start.
    service = multiprocessing.get_context("fork").Process(target=_become, args=(command,))
    service.start()
    try:
        service.join()
    except KeyboardInterrupt:
        typer.echo("Stopping ...")
        service.terminate()
        service.join()
    return service.exitcode or 0


def _become(command: list[str]) -> None:
    os.setsid()  # Ctrl-C reaches only our parent, which stops us as a supervisor would
    end_with_parent()
    os.chdir(ROOT)
    sys.argv = command
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)
