"""The size of a table: one book, the first and last page of each sort, searches, page depth."""

import asyncio
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import create_async_engine

from app.services.book_pages import SORTS
from app.services.book_queries import BOOKS
from benchmarks.growth.catalogue import COMMON, RARE
from benchmarks.growth.cost import Probe
from benchmarks.growth.lines import Chart
from benchmarks.growth.report import Report, curves, report_of
from benchmarks.growth.setup import Setup

PAGE = 20
CPU = "CPU time per response, worker, MariaDB and Valkey, µs"
SPREAD = 1.5  # of all pages of the largest table, at most
ALL, NINTH, OTHER_NINTH = COMMON
SEARCHES = {
    "a rare word, in five books": f"q={RARE}",
    "a word of each ninth book": f"q={NINTH}",
    "a word of every book": f"q={ALL}",
    "both, by rating": f"q={ALL}+{NINTH}&sort=-average_rating",
    "two words of a ninth each, in a book of 81": f"q={NINTH}+{OTHER_NINTH}",
    "a rare and a common word, by rating": f"q={RARE}+{ALL}&sort=-average_rating",
    # Their titles begin alike, and others come first.
    "a word of each ninth book, by title": f"q={NINTH}&sort=title",
}


def measure_tables(setup: Setup) -> Report:
    with setup.on_each() as services:
        probes = []
        for books, service in services.items():
            url = setup.catalogue(books)
            some = range(1, books + 1, books // 200)
            probes.append(Probe("one book", books, service, [f"/v1/books/{id}" for id in some]))
            for sort in SORTS:
                [last] = asyncio.run(pages_at(url, sort, [books - PAGE]))
                first = f"/v1/books?limit={PAGE}&sort={sort}"
                probes.append(Probe(f"{sort}, first page", books, service, [first]))
                probes.append(Probe(f"{sort}, last page", books, service, [last]))
        costs = setup.measure("tables", probes)
    largest = setup.sizes[-1]
    times = [points[largest].cpu for line, points in costs.items() if line.endswith("page")]
    waits = [points[largest].p50 for line, points in costs.items() if line.endswith("page")]
    note = (
        f"Of {largest:,} books, the dearest page takes {max(times) / min(times):.2f} times the CPU"
        f" time of the cheapest (budget {SPREAD}), and {max(waits) / min(waits):.2f} times its p50"
        f" (the same budget, where nothing else runs)."
    )
    shown = curves({line: points for line, points in costs.items() if line != "one book"})
    charts = [Chart("tables", f"Pages: {CPU}", "books in the table", shown, pairs=True)]
    return report_of(
        "tables", "One book and pages, by size of the table", "books", costs, charts, note
    )


def measure_searches(setup: Setup) -> Report:
    with setup.on_each() as services:
        probes = [
            Probe(line, books, service, [f"/v1/books?limit={PAGE}&{query}"])
            for books, service in services.items()
            for line, query in SEARCHES.items()
        ]
        costs = setup.measure("searches", probes)
    charts = [Chart("searches", f"Searches: {CPU}", "books in the table", curves(costs))]
    return report_of("searches", "Searches, by size of the table", "books", costs, charts)


def measure_depth(setup: Setup) -> Report:
    books = setup.sizes[-1]
    last = books // PAGE
    numbers = [1, 100, min(10_000, last // 2), last]
    with setup.running() as service:
        probes = []
        for sort in SORTS:
            further = asyncio.run(
                pages_at(setup.largest, sort, [n * PAGE - PAGE for n in numbers[1:]])
            )
            paths = [f"/v1/books?limit={PAGE}&sort={sort}", *further]
            probes += [
                Probe(sort, number, service, [path])
                for number, path in zip(numbers, paths, strict=True)
            ]
        costs = setup.measure("depth", probes)
    charts = [Chart("depth", f"Page of {PAGE}: {CPU}", "number of the page", curves(costs))]
    title = f"Pages of {books:,} books, by their number"
    return report_of("depth", title, "pages", costs, charts)


async def pages_at(url: str, sort: str, offsets: list[int]) -> list[str]:
    """Paths of the pages after so many books."""
    order = SORTS[sort].by(BOOKS)
    columns: list[Any] = [BOOKS.c[name] for name in dict.fromkeys(("id", sort.lstrip("-")))]
    engine = create_async_engine(url)
    paths = []
    async with engine.connect() as connection:
        for offset in offsets:
            query = select(*columns).order_by(*order).offset(offset - 1).limit(1)
            book = (await connection.execute(query)).one()
            paths.append(f"/v1/books?limit={PAGE}&sort={sort}&after={SORTS[sort].cursor(book)}")
    await engine.dispose()
    return paths
