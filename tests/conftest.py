"""Real servers for the whole run; each test that uses a database runs on both kinds."""

import asyncio
import os
import pickle
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import URL, delete, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.types import Receive, Scope, Send

from app import schema
from app.database import create_engine
from app.main import create_app
from app.models import Base, CacheEpoch
from app.resources import Resources, open_resources
from app.schemas.user import Role
from app.servers.private import ServerUnavailable, embedded_valkey, private_mariadb
from app.settings import (
    CacheSettings,
    DatabaseSettings,
    LimitsSettings,
    LogSettings,
    RedisSettings,
    Settings,
    TokenSettings,
)
from tests.accounts import KEY, add_account
from tests.catalogue import Catalogue
from tests.sellers import Sellers, running_sellers

VAR = Path(__file__).parent.parent / "var"
# `DATABASE_` and so on; OpenTelemetry has settings of its own.
SETTINGS = (*(f"{name.upper()}_" for name in Settings.model_fields), "OTEL_")


@dataclass
class Servers:
    """Given or started for this run, whose processes share them."""

    folder: Path
    redis_url: str
    mariadb: URL
    mariadb_source: str


servers_key = pytest.StashKey[Servers]()
stack = ExitStack()  # of what this process has started, and stops


def pytest_configure(config: pytest.Config) -> None:
    for name in [*os.environ]:
        # What a developer has set for his service is not for the tests.
        if f"{name}_".startswith(SETTINGS):
            del os.environ[name]
    if shared := getattr(config, "workerinput", None):
        config.stash[servers_key] = pickle.loads(shared["servers"])
        return
    try:
        config.stash[servers_key] = start_servers()
    except ServerUnavailable as error:
        pytest.exit(f"The tests need a MariaDB and a Valkey.\n{error}", returncode=1)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Before a process of pytest-xdist starts."""
    node.workerinput["servers"] = pickle.dumps(node.config.stash[servers_key])


def pytest_report_header(config: pytest.Config) -> str:
    return f"MariaDB: {config.stash[servers_key].mariadb_source}"


def pytest_unconfigure(config: pytest.Config) -> None:
    stack.close()


def start_servers() -> Servers:
    with ExitStack() as started:
        folder = Path(started.enter_context(tempfile.TemporaryDirectory(prefix="books-")))
        valkey = started.enter_context(embedded_valkey(folder / "valkey"))
        url, source = os.environ.get("TEST_DATABASE_URL"), "TEST_DATABASE_URL"
        if not url:
            mariadb = started.enter_context(private_mariadb(folder / "mariadb", VAR, say=print))
            url, source = mariadb.url, mariadb.source
        stack.push(started.pop_all())
        return Servers(folder, valkey.url, make_url(url), source)


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> Servers:
    return pytestconfig.stash[servers_key]


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session", params=["sqlite", "mariadb"])
def empty_database(request: pytest.FixtureRequest, servers: Servers) -> Iterator[str]:
    """The URL of a new database without tables; nothing else on its server is touched."""
    name = f"test_{secrets.token_hex(4)}"
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{servers.folder}/{name}.db"
        return
    asyncio.run(execute(servers.mariadb, f"CREATE DATABASE {name}"))
    yield servers.mariadb.set(database=name).render_as_string(hide_password=False)
    asyncio.run(execute(servers.mariadb, f"DROP DATABASE {name}"))


async def execute(url: URL, statement: str) -> None:
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(statement))
    await engine.dispose()


@pytest.fixture(scope="session")
def database_url(empty_database: str) -> str:
    asyncio.run(migrate(empty_database))
    return empty_database


@pytest.fixture
def environment(database_url: str, servers: Servers) -> dict[str, Any]:
    """The variables of a service in a process of its own."""
    return {
        "DATABASE_URL": database_url,
        "DATABASE_POOL_SIZE": 5,
        "REDIS_URL": servers.redis_url,
        "CACHE_NAMESPACE": f"test-{secrets.token_hex(4)}",
        "TOKENS_KEY": KEY,
        "LIMITS_ENABLED": False,
        "WEB_CONCURRENCY": 2,
    }


async def migrate(url: str) -> None:
    engine = create_engine(DatabaseSettings(url=url), "maintenance")
    await schema.migrate(engine)
    await engine.dispose()


@pytest.fixture
def settings(database_url: str, servers: Servers) -> Settings:
    return Settings(
        _env_file=None,
        database=DatabaseSettings(url=database_url),
        # A machine that is busy for a moment is no Redis that is away.
        redis=RedisSettings(url=servers.redis_url, timeout=2),
        # What other tests have left in the cache is not for this one, nor are their requests.
        cache=CacheSettings(namespace=f"test-{secrets.token_hex(4)}"),
        limits=LimitsSettings(enabled=False),
        tokens=TokenSettings(key=KEY),  # those of services in processes of their own, too
        log=LogSettings(level="ERROR"),
    )


@pytest.fixture
async def resources(settings: Settings) -> AsyncIterator[Resources]:
    async with open_resources(settings) as resources:
        yield resources
        async with resources["sessions"].write.begin() as session:
            for table in reversed(Base.metadata.sorted_tables):
                if table is not CacheEpoch.__table__:  # its one row is part of the schema
                    await session.execute(delete(table))


@asynccontextmanager
async def client_of(app: FastAPI, resources: Resources) -> AsyncIterator[httpx2.AsyncClient]:
    """A client without a socket in between; `ASGITransport` runs no lifespan."""

    async def running_app(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": dict(resources)}, receive, send)

    transport = httpx2.ASGITransport(running_app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.fixture(scope="session")
def started_sellers() -> Iterator[Sellers]:
    with running_sellers() as sellers:
        yield sellers


@pytest.fixture
def sellers(started_sellers: Sellers) -> Sellers:
    """Three that behave, until a test tells them not to."""
    started_sellers.behave()
    return started_sellers


APPS: dict[str, FastAPI] = {}


@pytest.fixture
async def client(settings: Settings, resources: Resources) -> AsyncIterator[httpx2.AsyncClient]:
    """An anonymous client of the whole application."""
    # To build one takes a tenth of a second; what it knows of the settings is no more than this.
    known = f"{settings.request} {settings.log}"
    app = APPS.get(known) or APPS.setdefault(known, create_app(settings))
    async with client_of(app, resources) as client:
        yield client


@pytest.fixture
async def token(resources: Resources) -> str:
    """An access token of an editor."""
    async with resources["sessions"].write() as session:
        return await add_account(session, Role.EDITOR, resources["access_tokens"])


@pytest.fixture
def catalogue(client: httpx2.AsyncClient, token: str) -> Catalogue:
    return Catalogue(client, token)
