"""Private memory of each of four workers, while they serve a mix of requests for books."""

import random
from collections.abc import Iterator
from itertools import islice

import uvloop

from app.services.book_pages import SORTS
from benchmarks.client import Tally, request_all
from benchmarks.comparison import generated
from benchmarks.comparison.cpus import ALL
from benchmarks.growth.catalogue import RARE
from benchmarks.growth.lines import Chart
from benchmarks.growth.report import Report, number
from benchmarks.growth.setup import Setup
from benchmarks.service import private_memory_of

WORKERS = 4
CLIENTS = 32
STEPS = 20
BUDGET = 60  # MiB of each worker
GROWTH = 1  # MiB; of the second half, at most
MIX = 5_000  # paths, which are then repeated


def measure_memory(setup: Setup) -> Report:
    books = setup.sizes[-1]
    paths = [*islice(_paths(books), MIX)]
    tally = Tally()
    with setup.running(cpus=ALL, WEB_CONCURRENCY=str(WORKERS)) as service:
        workers = service.workers
        memory = {0.0: [private_memory_of(pid) / 1024 for pid in workers]}
        with setup.advancing("memory", STEPS) as advance:
            for step in range(1, STEPS + 1):
                part = setup.requests // STEPS
                uvloop.run(request_all(service.url, paths, part, CLIENTS, tally))
                tally.latencies.clear()
                assert service.workers == workers, "a worker was replaced"
                found = [private_memory_of(pid) / 1024 for pid in workers]
                memory[part * step] = found
                shown = ", ".join(f"{value:.1f}" for value in found)
                advance(f"{part * step:,} requests, {shown} MiB")
                setup.progress.console.print(f"After {part * step:,} requests: {shown} MiB")
    return _report(memory, tally, books)


def _report(memory: dict[float, list[float]], tally: Tally, books: int) -> Report:
    lines = {
        f"worker {place + 1}": {x: found[place] for x, found in memory.items()}
        for place in range(WORKERS)
    }
    chart = Chart(
        "memory", "Private memory of each worker, MiB", "requests to all", lines, logarithmic=False
    )
    places = [*memory]
    shown = [places[0], places[1], places[STEPS // 2], places[-1]]
    head = [
        f"after {' → '.join(number(place) for place in shown)} requests",
        *("private memory, MiB", "growth in the second half, MiB"),
    ]
    rows = [
        [
            line,
            " → ".join(f"{points[place]:.1f}" for place in shown),
            f"{points[places[-1]] - points[places[STEPS // 2]]:+.1f}",
        ]
        for line, points in lines.items()
    ]
    statuses = ", ".join(f"{count:,} of {status}" for status, count in tally.responses.items())
    note = (
        f"{CLIENTS} clients, {books:,} books; responses: {statuses}; {tally.broken} connections"
        f" broken. Budget: {BUDGET} MiB for each worker."
    )
    data = {
        line: {number(x): value for x, value in points.items()} for line, points in lines.items()
    }
    return Report("memory", "Memory of four workers under a mix", [chart], head, rows, data, [note])


def _paths(books: int) -> Iterator[str]:
    """Half of a few books, which the cache has; the others from all over the catalogue."""
    chance = random.Random(7)  # noqa: S311 - the same mix each time
    sorts = [*SORTS]
    while True:
        yield from (f"/v1/books/{chance.randint(1, 100)}" for _ in range(10))
        yield from (f"/v1/books/{chance.randint(1, books)}" for _ in range(4))
        yield f"/v1/books/{books + chance.randint(1, books)}"  # 404
        yield f"/v1/books?limit={chance.randint(1, 100)}&sort={chance.choice(sorts)}"
        yield f"/v1/books?author_id={chance.randint(1, generated.AUTHORS)}"
        yield f"/v1/books?q={RARE}&year_from={chance.randint(1850, 2020)}"
        yield f"/v1/authors/{chance.randint(1, generated.AUTHORS)}"
        yield "/health"
