"""Real servers for the whole run; each test that uses a database runs on both kinds."""

import asyncio
import gc
import os
import pickle
import secrets
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from starlette.types import Receive, Scope, Send

from app.schemas.user import Role
from app.settings import Settings
from chassis.auth.settings import PasswordSettings, TokenSettings
from chassis.cache.model import CacheEpoch
from chassis.cache.settings import CacheSettings
from chassis.database.columns import Base
from chassis.database.engines import create_engine
from chassis.database.settings import DatabaseSettings
from chassis.development.private_servers import ServerUnavailable, embedded_valkey, private_mariadb
from chassis.development.server_process import Server
from chassis.limits.settings import LimitsSettings
from chassis.redis.settings import RedisSettings
from chassis.resources import Resources, open_resources
from chassis.telemetry.settings import LogSettings
from tests.accounts import KEY, add_account
from tests.purchases.model import OwnBase
from tests.service import create_app
from tests.shop import Shop
from tests.upstream import Upstream, running_upstream

VAR = Path(__file__).parent.parent / "var"
MEMORY = Path("/dev/shm")  # a disk would be waited for at each CREATE TABLE
# `DATABASE_` and so on; OpenTelemetry has settings of its own.
SETTINGS = (*(f"{name.upper()}_" for name in Settings.model_fields), "OTEL_")


class Servers:
    """Of this run, whose processes share them; MariaDB is started when it is first needed."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.folder = folder
        self.redis_url = redis_url

    @cached_property
    def mariadb(self) -> URL:
        if url := os.environ.get("TEST_DATABASE_URL"):
            return make_url(url)
        return make_url(start(private_mariadb(self.folder / "mariadb", VAR, say=print)).url)


def start(server: AbstractContextManager[Server]) -> Server:
    try:
        return stack.enter_context(server)
    except ServerUnavailable as error:
        pytest.exit(f"The tests need a MariaDB and a Valkey.\n{error}", returncode=1)


servers_key = pytest.StashKey[Servers]()
stack = ExitStack()  # of what this process has started, and stops


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--failed-files", action="store_true", help="only files of what failed last")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--failed-files"):
        # Whole ones: tests of a stack follow each other as operators would go on.
        failed = {id.partition("::")[0] for id in config.cache.get("cache/lastfailed", {})}
        items[:] = [item for item in items if item.nodeid.partition("::")[0] in failed]


def pytest_configure(config: pytest.Config) -> None:
    for name in [*os.environ]:
        # What a developer has set for his service is not for the tests.
        if f"{name}_".startswith(SETTINGS):
            del os.environ[name]
    # A shell starts what it runs in the background with SIGINT ignored, which processes inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if shared := getattr(config, "workerinput", None):
        config.stash[servers_key] = pickle.loads(shared["servers"])
        return
    in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 2**30
    temporary = tempfile.TemporaryDirectory(prefix="tests-", dir=MEMORY if in_memory else None)
    folder = Path(stack.enter_context(temporary))
    valkey = start(embedded_valkey(folder / "valkey"))
    config.stash[servers_key] = Servers(folder, valkey.url)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Before a process of pytest-xdist starts: servers belong to the one that starts it."""
    servers = node.config.stash[servers_key]
    assert servers.mariadb
    node.workerinput["servers"] = pickle.dumps(servers)


def pytest_collection_finish() -> None:
    """What was imported stays: the garbage collector need not visit it."""
    gc.freeze()


def pytest_unconfigure(config: pytest.Config) -> None:
    stack.close()


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> Servers:
    return pytestconfig.stash[servers_key]


@pytest.fixture(scope="session")
def mariadb(servers: Servers) -> URL:
    """Its URL. To start it takes an event loop: async tests and fixtures ask for this."""
    return servers.mariadb


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
def cleaned(request: pytest.FixtureRequest, database_url: str) -> Iterator[None]:
    """Leaves no rows behind where nothing else does: services of a test's own, or in processes."""
    yield
    if "resources" not in request.fixturenames:
        asyncio.run(clean(database_url))


async def clean(url: str) -> None:
    engine = create_engine(DatabaseSettings(url=url), "write")
    async with engine.begin() as connection:
        await delete_rows(connection)
    await engine.dispose()


# Of the resource that tests of the engine are made with; no migration makes them.
OWN_TABLES = [OwnBase.metadata.tables[name] for name in ("payers", "purchases")]
# Those that refer to others before them. The one row of `CacheEpoch` is part of the schema.
CLEANED = [
    table.name
    for table in [*reversed(OWN_TABLES), *reversed(Base.metadata.sorted_tables)]
    if table is not CacheEpoch.__table__
]


async def delete_rows(connection: AsyncConnection) -> None:
    # As text: a new engine would compile each statement anew.
    found = await connection.exec_driver_sql(
        " UNION ALL ".join(
            f"SELECT {number} FROM (SELECT 1 FROM {name} LIMIT 1) t{number}"
            for number, name in enumerate(CLEANED)
        )
    )
    for number in sorted(found.scalars()):
        await connection.exec_driver_sql(f"DELETE FROM {CLEANED[number]}")


@pytest.fixture
def environment(database_url: str, cleaned: None, servers: Servers) -> dict[str, Any]:
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
    """To the newest schema, and the tables of the tests."""
    # Only here: not every run has a database, and Alembic takes long to import.
    from chassis.migrations import schema

    engine = create_engine(DatabaseSettings(url=url), "maintenance")
    await schema.migrate(engine)
    async with engine.begin() as connection:
        await connection.run_sync(OwnBase.metadata.create_all, OWN_TABLES)
    await engine.dispose()


@pytest.fixture
def settings(usual_settings: Settings, cleaned: None) -> Settings:
    settings = usual_settings.model_copy(deep=True)
    # What other tests have left in the cache is not for this one, nor are their requests.
    settings.cache = CacheSettings(namespace=f"test-{secrets.token_hex(4)}")
    return settings


@pytest.fixture(scope="session")
def usual_settings(database_url: str, servers: Servers) -> Settings:
    """Copied for each test: to look for each of them in the environment takes milliseconds."""
    return Settings(
        _env_file=None,
        # A machine that is busy for a moment is no database and no Redis that is away.
        database=DatabaseSettings(url=database_url, pool_timeout=15, connect_timeout=15),
        redis=RedisSettings(url=servers.redis_url, timeout=2),
        limits=LimitsSettings(enabled=False),
        passwords=PasswordSettings(time_cost=1, memory_cost=8),  # few tests are about the cost
        tokens=TokenSettings(key=KEY),  # those of services in processes of their own, too
        log=LogSettings(level="ERROR"),
    )


@pytest.fixture
async def resources(settings: Settings) -> AsyncIterator[Resources]:
    async with open_resources(settings) as resources:
        yield resources
        async with resources["sessions"].write.begin() as session:
            await delete_rows(await session.connection())


@asynccontextmanager
async def client_of(
    app: FastAPI, resources: Resources, address: str = "127.0.0.1"
) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a socket in between; `ASGITransport` runs no lifespan."""

    async def running_app(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": dict(resources)}, receive, send)

    transport = httpx.ASGITransport(running_app, client=(address, 123))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


APPS: dict[str, FastAPI] = {}


@pytest.fixture
async def client(settings: Settings, resources: Resources) -> AsyncIterator[httpx.AsyncClient]:
    """An anonymous client of the whole application, and of the resource of the tests."""
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
def shop(client: httpx.AsyncClient, token: str) -> Shop:
    return Shop(client, token)


@pytest.fixture(scope="session")
def started_upstream() -> Iterator[Upstream]:
    with running_upstream() as upstream:
        yield upstream


@pytest.fixture
def upstream(started_upstream: Upstream) -> Upstream:
    """Its host `alpha` behaves, until a test tells it not to."""
    started_upstream.behave("alpha")
    return started_upstream
