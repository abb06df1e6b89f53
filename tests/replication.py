"""MariaDB servers of their own: a primary, and replicas that a test can hold up."""

import asyncio
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from app.settings import Settings
from chassis.auth.settings import PasswordSettings
from chassis.cache.settings import CacheSettings
from chassis.database.settings import DatabaseSettings
from chassis.development.private_servers import Server, private_mariadb
from chassis.limits.settings import LimitsSettings
from chassis.redis.settings import RedisSettings
from chassis.telemetry.settings import LogSettings
from tests.conftest import migrate
from tests.process import freeze

ACCOUNT = "mariadb+asyncmy://root@?charset=utf8mb4"


@dataclass
class Replication:
    primary: Server
    replicas: list[Server]

    @property
    def replica(self) -> Server:
        """The only one, or the first."""
        return self.replicas[0]

    def primary_url(self, database: str) -> URL:
        return make_url(self.primary.url).set(database=database)

    async def stop_applying(self, *replicas: Server) -> None:
        """From now on these, or all, serve what they have, older and older."""
        for replica in replicas or self.replicas:
            await execute(make_url(replica.url), "STOP SLAVE SQL_THREAD")

    async def go_on(self, *replicas: Server) -> None:
        for replica in replicas or self.replicas:
            await execute(make_url(replica.url), "START SLAVE")

    async def catch_up(self, *replicas: Server) -> None:
        """Wait until these, or all, have what the primary has committed by now."""
        position = await execute(make_url(self.primary.url), "SELECT @@gtid_binlog_pos")
        for replica in replicas or self.replicas:
            await execute(make_url(replica.url), f"SELECT MASTER_GTID_WAIT('{position}', 30)")

    @asynccontextmanager
    async def database(self) -> AsyncIterator[DatabaseSettings]:
        """A new one, with the tables of the service, until all replicas go on."""
        name = f"test_{secrets.token_hex(4)}"
        await execute(self.primary_url(""), f"CREATE DATABASE {name}")
        urls = [make_url(server.url).set(database=name) for server in self.replicas]
        primary = _shown(self.primary_url(name))
        await migrate(primary)
        await self.catch_up()
        yield DatabaseSettings(url=primary, read_url=",".join(map(_shown, urls)))
        await self.go_on()
        await execute(self.primary_url(""), f"DROP DATABASE {name}")

    @contextmanager
    def frozen(self, server: Server) -> Iterator[None]:
        """A server that takes connections and does not answer, as behind a broken network."""
        assert server.process is not None
        freeze(server.process)
        try:
            yield
        finally:
            server.process.send_signal(signal.SIGCONT)


@contextmanager
def replication(folder: Path, cache: Path, replicas: int = 1) -> Iterator[Replication]:
    """Where no event loop runs."""
    port = _free_port()
    listening = ["--skip-networking=OFF", "--bind-address=127.0.0.1", f"--port={port}"]
    binlog = ["--server-id=1", "--log-bin=binlog", "--binlog-format=MIXED"]
    with ExitStack() as stack:

        def start(name: str, *options: str) -> Server:
            server = private_mariadb(folder / name, cache, options=["--userstat=ON", *options])
            return stack.enter_context(server)

        primary = start("primary", *listening, *binlog)
        made = Replication(primary, [])
        password = secrets.token_hex(8)
        account = f"CREATE USER replica@'127.0.0.1' IDENTIFIED BY '{password}'"
        asyncio.run(execute(make_url(primary.url), account))
        for number in range(2, replicas + 2):
            made.replicas.append(start(f"replica_{number}", f"--server-id={number}"))
            replica = make_url(made.replicas[-1].url)
            asyncio.run(_connect(make_url(primary.url), replica, port, password))
        yield made


async def _connect(primary: URL, replica: URL, port: int, password: str) -> None:
    await execute(primary, "GRANT REPLICATION SLAVE ON *.* TO replica@'127.0.0.1'")
    # Both have created the database; the replica gets the rest from the primary.
    await execute(replica, f"DROP DATABASE {replica.database}", database="")
    await execute(
        replica,
        f"CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='replica',"
        f" MASTER_PASSWORD='{password}', MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1",
        database="",
    )
    await execute(replica, "START SLAVE", database="")


async def execute(url: URL, statement: str, database: str | None = "") -> object:
    """The first value that it gives, if any."""
    engine = create_async_engine(url.set(database=database), isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            result = await connection.execute(text(statement))
            return result.scalar() if result.returns_rows else None
    finally:
        await engine.dispose()


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def settings_of(database: DatabaseSettings, redis_url: str, lag: float) -> Settings:
    """Of a service on these servers, whose replicas may be `lag` s behind."""
    return Settings(
        _env_file=None,
        database=database.model_copy(update={"read_lag": lag}),
        redis=RedisSettings(url=redis_url, timeout=2),
        cache=CacheSettings(namespace=secrets.token_hex(4)),
        limits=LimitsSettings(enabled=False),
        log=LogSettings(level="ERROR"),
        passwords=PasswordSettings(time_cost=1, memory_cost=8),
    )
