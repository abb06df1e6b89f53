"""Turns of one worker and of two, with more and more clients, and what a request costs in them."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle
from statistics import median

import httpx2 as httpx
import uvloop
from redis import Redis

from benchmarks.client import request_all, request_for
from benchmarks.comparison.cpus import ALL, OTHERS, WORKER, pinned_to
from benchmarks.comparison.measure import wait_for_rest
from benchmarks.comparison.routes import NO_STORE
from benchmarks.comparison.stage import Stage
from benchmarks.scaling.model import Resource
from benchmarks.scaling.sizing import Demand
from benchmarks.service import Service, cpu_time_of

CLIENTS = (1, 2, 4, 8, 16, 32, 64)
ENTRIES = 5_000  # of the cache, whose memory is measured
TOLERATED = 0.9  # responses that are no refusal, at least
LOADED = 32  # clients at which the demands of the model are taken
# Two workers have all CPUs, as they have in production; one alone leaves the others to the rest.
CPUS = {1: WORKER, 2: ALL}


@dataclass(frozen=True)
class Measured:
    """A turn; times in s."""

    rate: float
    response: float  # mean response time
    worker: float  # CPU time for a request, as are the next three
    mariadb: float
    valkey: float
    client: float


@dataclass(frozen=True)
class Kind:
    """Requests of one kind."""

    name: str
    paths: Sequence[str]
    headers: str = ""


Points = Mapping[tuple[str, int, int], Measured]  # by kind, workers and clients


def kinds(stage: Stage) -> list[Kind]:
    some = [book.id for book in stage.books[:: max(1, len(stage.books) // 200)]]
    books = [f"/v1/books/{id}" for id in some]
    return [
        Kind("book, cached", books),
        Kind("book", books, NO_STORE),
        Kind("page of 20", ["/v1/books?limit=20"], NO_STORE),
    ]


def measure(
    stage: Stage, rounds: int, seconds: float, advance: Callable[[str], None]
) -> tuple[Points, Mapping[str, float], float]:
    """Medians of rounds, and bytes: of a body by kind, and in the cache of a book."""
    taken: dict[tuple[str, int, int], list[Measured]] = {}
    with ExitStack() as stack:
        stack.enter_context(pinned_to(OTHERS))  # the clients
        services = {
            workers: stack.enter_context(
                stage.running("ours", cpus=cpus, WEB_CONCURRENCY=str(workers), **POOL)
            )
            for workers, cpus in CPUS.items()
        }
        for service in services.values():
            for kind in kinds(stage):
                take(stage, service, kind, LOADED, seconds)  # what happens once
        for number in range(rounds):
            for key in turns(kinds(stage), number):
                kind, workers, clients = key
                sample = take(stage, services[workers], kind, clients, seconds)
                taken.setdefault((kind.name, workers, clients), []).append(sample)
                advance(f"{kind.name}, {workers} workers, {clients} clients")
        sizes = {
            kind.name: float(len(httpx.get(services[1].url + kind.paths[0]).content))
            for kind in kinds(stage)
        }
        entry = entry_size(stage, services[1])
    return {key: middle(samples) for key, samples in taken.items()}, sizes, entry


POOL = {"DATABASE_POOL_SIZE": "20", "DATABASE_MAX_OVERFLOW": "20"}  # three workers must fit


def entry_size(stage: Stage, service: Service) -> float:
    """Memory that Valkey takes for a cached book with its key, tag and token, bytes."""
    wanted = [f"/v1/books/{book.id}" for book in stage.books[-ENTRIES:]]
    with Redis.from_url(stage.variables["REDIS_URL"]) as redis:
        before = redis.info("memory")["used_memory"]
        uvloop.run(request_all(service.url, wanted, len(wanted)))
        return float(redis.info("memory")["used_memory"] - before) / len(wanted)


def turns(kinds: Sequence[Kind], number: int) -> Iterator[tuple[Kind, int, int]]:
    """Every second round backwards: what drifts meanwhile changes all of them alike."""
    every = [(kind, workers, clients) for kind in kinds for workers in CPUS for clients in CLIENTS]
    return iter(every if number % 2 else every[::-1])


def take(stage: Stage, service: Service, kind: Kind, clients: int, seconds: float) -> Measured:
    wait_for_rest(service)
    mariadb, *valkeys = stage.processes

    def spent() -> tuple[float, float, float, float]:
        valkey = sum(map(cpu_time_of, valkeys))
        return service.cpu_time(), cpu_time_of(mariadb), valkey, time.process_time()

    before, start = spent(), time.perf_counter()
    asking = request_for(service.url, cycle(kind.paths), seconds, clients, kind.headers)
    tally = uvloop.run(asking)
    elapsed = time.perf_counter() - start
    wait_for_rest(service)
    count = tally.responses[200]
    if count < TOLERATED * tally.responses.total() or tally.broken:  # a busy machine sheds some
        raise SystemExit(f"{kind.name}: {tally.responses}, {tally.broken} connections broken")
    costs = [(after - then) / count for after, then in zip(spent(), before, strict=True)]
    return Measured(count / elapsed, sum(tally.latencies) / count, *costs)


def middle(samples: Sequence[Measured]) -> Measured:
    names = Measured.__dataclass_fields__
    return Measured(**{name: median(getattr(each, name) for each in samples) for name in names})


def resources(points: Points, kind: str, workers: int) -> list[Resource]:
    """The CPUs of the model: the worker's and that of the rest, or two for all."""
    at = points[kind, 1, LOADED]
    rest = at.mariadb + at.valkey + at.client
    if workers == 1:
        return [Resource(at.worker), Resource(rest, max(1, len(OTHERS)))]
    return [Resource(at.worker + rest, len(ALL))]


def demands(points: Points, sizes: Mapping[str, float]) -> dict[str, Demand]:
    """Of a loaded worker: event loops do more at once, so a request costs less than alone."""
    found = {kind: points[kind, 1, LOADED] for kind in sizes}
    return {
        kind: Demand(at.worker, at.mariadb, at.valkey, sizes[kind]) for kind, at in found.items()
    }
