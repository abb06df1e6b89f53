"""A new name of an author, by the number of the author's books, and what it invalidates."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from statistics import median
from threading import Event

import httpx2 as httpx
from redis import Redis
from sqlalchemy import Connection, create_engine, make_url, text

from benchmarks.growth.catalogue import prolific
from benchmarks.growth.lines import Chart
from benchmarks.growth.report import Report, number
from benchmarks.growth.setup import Setup
from benchmarks.load.__main__ import EDITOR, MANY, PASSWORD, add_accounts
from benchmarks.service import Service
from chassis.errors import Conflict

ROUNDS = 5
EPOCH = text("SELECT number FROM cache_epoch")
HEAD = (
    *("books of the author", "response, ms", "CPU of the worker, ms", "of MariaDB and Valkey, ms"),
    *("others waited, ms", "new tokens", "whole cache invalidated"),
)


@dataclass(frozen=True)
class Rename:
    elapsed: float  # ms, as are the next three
    worker: float  # CPU time
    servers: float  # that of MariaDB and Valkey
    others: float  # the longest that another request to this worker waited meanwhile
    tags: float  # that have new tokens
    epochs: float  # each invalidates everything


def measure_renames(setup: Setup) -> Report:
    authors = prolific(setup.sizes[-1])
    with suppress(Conflict):  # an earlier run has added the editor
        asyncio.run(add_accounts({**setup.stage.variables, "DATABASE_URL": setup.largest}, []))
    taken: dict[int, list[Rename]] = {count: [] for count in authors.values()}
    url = make_url(setup.largest).set(drivername="mariadb+pymysql")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with (
        setup.running(**MANY) as service,
        setup.advancing("renames", ROUNDS * len(authors)) as advance,
        engine.connect() as database,
        Redis.from_url(setup.stage.variables["REDIS_URL"]) as redis,
    ):
        headers = {"Authorization": f"Bearer {_log_in(service)}"}
        for round_ in range(ROUNDS):
            for author, count in authors.items():
                redis.flushdb()
                request = httpx.Request(
                    "PATCH",
                    f"{service.url}/v1/authors/{author}",
                    json={"name": f"Author {round_} of {count:,} Books, {time.time()}"},
                    headers=headers,
                )
                taken[count].append(rename(setup, service, request, database, redis))
                advance(f"an author of {count:,} books")
    engine.dispose()
    return _report({count: _middle(renames) for count, renames in taken.items()})


def rename(
    setup: Setup, service: Service, request: httpx.Request, database: Connection, redis: "Redis"
) -> Rename:
    worker, servers = service.cpu_time(), setup.stage.cpu_time()
    epoch = database.scalar(EPOCH) or 0
    with _other_requests(service.url) as longest, httpx.Client(timeout=60) as client:
        start = time.perf_counter()
        client.send(request).raise_for_status()
        elapsed = time.perf_counter() - start
    return Rename(
        elapsed=elapsed * 1000,
        worker=(service.cpu_time() - worker) * 1000,
        servers=(setup.stage.cpu_time() - servers) * 1000,
        others=longest() * 1000,
        tags=sum(1 for _ in redis.scan_iter("*:tag:*", count=10_000)),
        epochs=(database.scalar(EPOCH) or 0) - epoch,
    )


@contextmanager
def _other_requests(url: str) -> Iterator[Callable[[], float]]:
    """Sent one after the other by a thread; yields what returns the longest response time, s."""
    ended = Event()

    def keep_asking() -> float:
        longest = 0.0
        with httpx.Client(base_url=url, timeout=60) as client:
            while not ended.wait(0.002):
                start = time.perf_counter()
                client.get("/health")
                longest = max(longest, time.perf_counter() - start)
        return longest

    with ThreadPoolExecutor(1) as executor:
        asking = executor.submit(keep_asking)
        try:
            yield asking.result
        finally:
            ended.set()


def _log_in(service: Service) -> str:
    form = {"grant_type": "password", "username": EDITOR, "password": PASSWORD}
    response = httpx.post(f"{service.url}/v1/tokens", data=form).raise_for_status()
    return str(response.json()["access_token"])


def _middle(renames: list[Rename]) -> Rename:
    return Rename(
        *(median(getattr(each, part.name) for each in renames) for part in fields(Rename))
    )


def _report(renames: dict[int, Rename]) -> Report:
    chart = Chart(
        "renames",
        "A new name of an author: response time, and CPU time of all, ms",
        "books of the author",
        {
            "response": {count: each.elapsed for count, each in renames.items()},
            "CPU time": {count: each.worker + each.servers for count, each in renames.items()},
            "others waited": {count: each.others for count, each in renames.items()},
        },
    )
    rows = [
        [
            number(count),
            *(f"{value:,.1f}" for value in (each.elapsed, each.worker, each.servers, each.others)),
            number(each.tags),
            "yes" if each.epochs else "no",
        ]
        for count, each in renames.items()
    ]
    data = {number(count): asdict(each) for count, each in renames.items()}
    return Report("renames", "A new name of an author", [chart], HEAD, rows, data)
