"""Two MariaDB servers of their own: a primary, and a replica that a test can hold up."""

import asyncio
import secrets
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from chassis.development.private_servers import Server, private_mariadb
from tests.process import freeze

ACCOUNT = "mariadb+asyncmy://root@?charset=utf8mb4"


@dataclass
class Replication:
    primary: Server
    replica: Server

    def primary_url(self, database: str) -> URL:
        return make_url(self.primary.url).set(database=database)

    def replica_url(self, database: str) -> URL:
        return make_url(self.replica.url).set(database=database)

    async def stop_applying(self) -> None:
        """From now on the replica serves what it has, older and older."""
        await execute(make_url(self.replica.url), "STOP SLAVE SQL_THREAD")

    async def go_on(self) -> None:
        await execute(make_url(self.replica.url), "START SLAVE")

    async def catch_up(self) -> None:
        """Wait until the replica has all that the primary has committed by now."""
        position = await execute(make_url(self.primary.url), "SELECT @@gtid_binlog_pos")
        await execute(make_url(self.replica.url), f"SELECT MASTER_GTID_WAIT('{position}', 30)")

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
def replication(folder: Path, cache: Path) -> Iterator[Replication]:
    """Where no event loop runs."""
    port = _free_port()
    listening = ["--skip-networking=OFF", "--bind-address=127.0.0.1", f"--port={port}"]
    binlog = ["--server-id=1", "--log-bin=binlog", "--binlog-format=MIXED"]
    with (
        private_mariadb(folder / "primary", cache, options=[*listening, *binlog]) as primary,
        private_mariadb(folder / "replica", cache, options=["--server-id=2"]) as replica,
    ):
        asyncio.run(_connect(make_url(primary.url), make_url(replica.url), port))
        yield Replication(primary, replica)


async def _connect(primary: URL, replica: URL, port: int) -> None:
    password = secrets.token_hex(8)
    await execute(primary, f"CREATE USER replica@'127.0.0.1' IDENTIFIED BY '{password}'")
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


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
