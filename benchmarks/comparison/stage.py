"""What all compared services share: MariaDB with the catalogue, Valkey, sellers of books."""

import asyncio
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2 as httpx
from redis import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from app.development.demo_sellers import NAMES, addresses, listening, run_sellers, setting
from benchmarks.comparison import generated
from benchmarks.comparison.cpus import OTHERS, WORKER, pinned_to
from benchmarks.service import (
    ROOT,
    Service,
    cpu_time_of,
    fill,
    one_worker,
    under_gunicorn,
    under_uvicorn,
)
from chassis.development.private_servers import embedded_valkey, private_mariadb

VAR = ROOT / "var"
LATENCY = 0.02  # s; of each seller


@dataclass
class Book:
    id: int
    title: str


@dataclass
class Stage:
    variables: dict[str, str]
    versions: dict[str, str]
    processes: list[int]  # MariaDB and Valkey; in a container, its client
    books: list[Book] = field(default_factory=list)

    def cpu_time(self) -> float:
        """User and system time of MariaDB and Valkey so far, s."""
        return sum(map(cpu_time_of, self.processes))

    @contextmanager
    def running(
        self, design: str, *options: str, cpus: set[int] = WORKER, **variables: str
    ) -> Iterator[Service]:
        """A service of benchmarks/designs, or `ours`; `options` are those of its server."""
        variables = self.variables | variables
        with ExitStack() as stack:
            with pinned_to(cpus):
                service = stack.enter_context(_start(design, options, variables))
            yield service


def _start(
    design: str, options: Sequence[str], variables: dict[str, str]
) -> AbstractContextManager[Service]:
    app = f"benchmarks.designs.{design}:app"
    if design == "ours":
        return one_worker(*options, **variables)
    if design == "literature":
        return under_gunicorn(app, **variables)
    if design != "before":
        options = ["--no-access-log", *options]
    return under_uvicorn(app, *options, **variables)


@contextmanager
def prepared(books: int = generated.BOOKS) -> Iterator[Stage]:
    """`books`: of a generated catalogue, unless GOODBOOKS names a file."""
    with servers() as stage, TemporaryDirectory(prefix="bench-") as folder:
        given = os.environ.get("GOODBOOKS")
        catalogue = Path(given) if given else generated.write(Path(folder, "books.csv"), books)
        url = stage.variables["DATABASE_URL"]
        asyncio.run(fill(url, catalogue))
        stage.books = asyncio.run(_look(url))
        yield stage


@contextmanager
def servers(data: Path | None = None, options: Sequence[str] = ()) -> Iterator[Stage]:
    """The servers alone. `data`: where MariaDB keeps what it has; `options`: more of its own."""
    with ExitStack() as stack:
        stack.enter_context(pinned_to(OTHERS))
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        data = data or folder / "mariadb"
        mariadb = stack.enter_context(private_mariadb(data, VAR, say=print, options=options))
        valkey = stack.enter_context(embedded_valkey(folder / "valkey"))
        queue = stack.enter_context(embedded_valkey(folder / "queue"))
        variables = {
            "DATABASE_URL": mariadb.url,
            "REDIS_URL": valkey.url,
            "JOBS_URL": queue.url,  # as in production: limits apart from the cache
            "FILES_URL": f"file://{folder}/files",
            "OFFERS_SELLERS": _sellers(stack),
        }
        with Redis.from_url(valkey.url) as redis:
            versions = {
                "MariaDB": asyncio.run(_version(mariadb.url)),
                "Valkey": redis.info()["valkey_version"],
            }
        started = [server.process.pid for server in (mariadb, valkey, queue) if server.process]
        yield Stage(variables, versions, started)


async def _look(url: str) -> list[Book]:
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        rows = await connection.execute(text("SELECT id, title FROM books ORDER BY id"))
    await engine.dispose()
    return [Book(*row) for row in rows]


async def _version(url: str) -> str:
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        version = await connection.scalar(text("SELECT VERSION()"))
    await engine.dispose()
    return f"{version}".partition("-")[0]


def _sellers(stack: ExitStack) -> str:
    """OFFERS_SELLERS; all of them take LATENCY."""
    listeners = stack.enter_context(listening())
    process = multiprocessing.get_context("spawn").Process(
        target=run_sellers, args=(listeners,), daemon=True
    )
    process.start()
    stack.callback(process.terminate)
    first = addresses(listeners)[0]
    with httpx.Client(timeout=60) as client:  # it listens already, and has yet to start
        for name in NAMES:
            client.put(f"{first}{name}", json={"latency": LATENCY}).raise_for_status()
    return setting(listeners)
