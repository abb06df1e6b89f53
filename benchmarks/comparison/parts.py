"""`make bench-parts`: what each technique buys, one at a time, beside what articles say of it.

QUICK=1 takes a minute and writes below var/ only.
"""

import os
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle

import httpx2 as httpx
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.comparison import generated, pages, results
from benchmarks.comparison.cpus import ALL
from benchmarks.comparison.measure import Plan, Turn, measure
from benchmarks.comparison.publish import conditions
from benchmarks.comparison.results import Summary
from benchmarks.comparison.routes import NO_STORE
from benchmarks.comparison.stage import VAR, Stage, prepared
from benchmarks.service import ROOT, Service
from chassis.development.private_servers import ServerUnavailable

PLAN = Plan(rounds=3, seconds=1.5, warm_up=0.7, limit=300)
QUICK = Plan(rounds=1, seconds=0.4, warm_up=0.2, limit=60)
HEAD = ["technique", "CPU, µs", "times", "1/s", "times", "p95, ms", "articles say"]
LEVELS = (1, 4, 6, 9)
WORKERS = (1, 2, 3, 5)
Times = Mapping[str, Summary]  # by variant


@dataclass(frozen=True)
class Part:
    """A technique, the variants without and with it, and what articles say it multiplies."""

    technique: str
    without: str
    with_it: str
    claim: str = ""


PARTS = (
    Part("uvloop instead of asyncio's own loop", "asyncio", "uvloop", "2 to 4"),
    Part("httptools instead of h11", "h11", "uvloop"),
    Part("a pool instead of a connection per request", "pool/none", "pool/pool", "5 to 10"),
    Part("no `pool_pre_ping`; we ping after 5 s idle", "pool/ping", "pool/pool"),
    Part("eager loading instead of N+1", "authors/n-plus-one", "authors/eager", "10 to 50"),
    Part("one join without ORM objects instead of N+1", "authors/n-plus-one", "authors/join"),
    Part("keyset instead of OFFSET, nine tenths down", "depth/offset", "depth/keyset"),
    Part("orjson instead of the standard library", "json/stdlib", "json/orjson", "2 to 5"),
    Part("a typed response instead of orjson", "json/orjson", "json/typed"),
    Part("a typed response instead of an untyped one", "json/untyped", "json/typed"),
    Part("the response cache, for one book", "uncached", "ours", "10 to 100"),
    Part("no access log", "ours", "no log"),
    Part("no metrics of requests", "ours", "no metrics"),
    Part("no rate limits", "ours", "no limits"),
    Part("no security headers", "ours", "no headers"),
    Part("CORS for one origin", "ours", "CORS, one"),
    Part("CORS for several origins", "ours", "CORS, several"),
    *(Part(f"{n} workers, of 1", "1 worker", f"{n} workers", "4" * (n == 5)) for n in WORKERS[1:]),
    Part("all of it: one book, instead of `before`", "before", "uncached", "10"),
    Part("all of it with the cache, instead of `before`", "before", "ours", "p95: 10"),
)


def main() -> None:
    console = Console(width=120)
    quick = bool(os.environ.get("QUICK"))
    plan = QUICK if quick else PLAN
    console.print("Starting MariaDB and Valkey, and importing the catalogue ...")
    try:
        with prepared(generated.BOOKS // 10 if quick else generated.BOOKS) as stage:
            times, page = measure_all(stage, plan, console)
    except ServerUnavailable as error:
        raise SystemExit(str(error)) from None
    shown = Table(*HEAD, title="What each technique buys: without it, then with it")
    for row in rows(times):
        shown.add_row(*row)
    console.print(shown)
    compressed = compression(page)
    for line in compressed:
        console.print(f"gzip level {line[0]}: {line[1]} bytes, {line[2]} µs")
    folder = VAR / "bench" if quick else results.RESULTS
    measured = {("parts", variant): summary for variant, summary in times.items()}
    more = {"books": len(stage.books), "gzip": compressed}
    results.write(folder / "parts.json", measured, stage.versions, plan, more)
    if not quick:
        content = [
            conditions(len(stage.books)),
            pages.table(HEAD, rows(times)),
            pages.table([f"gzip of a page of {len(page):,} bytes", "bytes", "µs"], compressed),
        ]
        target = ROOT / "docs" / "performance.md"
        pages.replace(target, "make bench-parts", *content)


def measure_all(stage: Stage, plan: Plan, console: Console) -> tuple[Times, bytes]:
    """Summaries by variant, and the body of a page."""
    times: dict[str, Summary] = {}
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("")
        for group in (loops, queries, service, workers):
            with ExitStack() as stack:
                turns = list(group(stage, stack))
                progress.reset(task, total=len(turns) * (plan.rounds + 1))

                def advance(part: str, name: str = group.__name__) -> None:
                    progress.update(task, advance=1, description=f"{name}, {part}")

                measured = results.summaries(measure(turns, plan, advance))
                times |= {variant: summary for (_, variant), summary in measured.items()}
    with stage.running("ours") as ours:
        page = httpx.get(f"{ours.url}/v1/books?limit=20").raise_for_status().content
    return times, page


def turn(variant: str, service: Service, *paths: str, headers: str = "") -> Turn:
    return Turn("parts", variant, service, cycle(paths), headers)


def loops(stage: Stage, stack: ExitStack) -> Iterator[Turn]:
    """/health of the bare service."""
    variants = {
        "asyncio": ("--loop", "asyncio", "--http", "httptools"),
        "h11": ("--loop", "uvloop", "--http", "h11"),
        "uvloop": ("--loop", "uvloop", "--http", "httptools"),
    }
    for variant, options in variants.items():
        yield turn(variant, stack.enter_context(stage.running("bare", *options)), "/health")


def queries(stage: Stage, stack: ExitStack) -> Iterator[Turn]:
    parts = stack.enter_context(stage.running("parts"))
    ids = [book.id for book in stage.books[:: len(stage.books) // 200]]
    for variant in ("pool/none", "pool/ping", "pool/pool"):
        yield turn(variant, parts, *(f"/{variant}?id={id}" for id in ids))
    for variant in ("authors/n-plus-one", "authors/eager", "authors/join"):
        yield turn(variant, parts, *(f"/{variant}?after={id}" for id in ids[:-1]))
    for variant in ("json/untyped", "json/stdlib", "json/orjson", "json/typed"):
        yield turn(variant, parts, f"/{variant}")
    depth = len(stage.books) * 9 // 10
    by_title = sorted(stage.books, key=lambda book: book.title)
    last = by_title[depth - 1]
    query = httpx.QueryParams({"title": last.title, "id": last.id})
    yield turn("depth/offset", parts, f"/depth/offset?offset={depth}")
    yield turn("depth/keyset", parts, f"/depth/keyset?{query}")


def service(stage: Stage, stack: ExitStack) -> Iterator[Turn]:
    """One book of this service, and of the one that articles warn of."""
    start = stage.running
    paths = [f"/v1/books/{book.id}" for book in stage.books[:50]]
    ours = stack.enter_context(start("ours"))
    yield turn("ours", ours, *paths)
    yield turn("uncached", ours, *paths, headers=NO_STORE)
    without = {
        "no log": start("ours", LOG_ACCESS_SAMPLE="0"),
        "no metrics": start("ours", "benchmarks.designs.without:metrics()"),
        "no limits": start("ours", LIMITS_ENABLED="0"),
        "no headers": start("ours", "benchmarks.designs.without:browser_headers()"),
        "before": start("before"),
    }
    for variant, starting in without.items():
        yield turn(variant, stack.enter_context(starting), *paths)
    one = "https://one.example.com"
    for variant, origins in {"CORS, one": one, "CORS, several": f"https://a.example,{one}"}.items():
        allowing = stack.enter_context(start("ours", CORS_ORIGINS=origins))
        yield turn(variant, allowing, *paths, headers=f"Origin: {one}\r\n")


def workers(stage: Stage, stack: ExitStack) -> Iterator[Turn]:
    """Uncached pages, on all CPUs."""
    pool = {"DATABASE_POOL_SIZE": "16", "DATABASE_MAX_OVERFLOW": "16"}  # five must fit
    for count in WORKERS:
        several = stage.running("ours", cpus=ALL, WEB_CONCURRENCY=str(count), **pool)
        variant = f"{count} worker{'s' * (count > 1)}"
        path = "/v1/books?limit=20"
        yield turn(variant, stack.enter_context(several), path, headers=NO_STORE)


def rows(times: Times) -> list[list[str]]:
    return [row(part, times[part.without], times[part.with_it]) for part in PARTS]


def row(part: Part, without: Summary, with_it: Summary) -> list[str]:
    return [
        part.technique,
        f"{without.cpu.median:,.0f} → {with_it.cpu.median:,.0f}",
        f"{without.cpu.median / with_it.cpu.median:.2f}",
        f"{without.rate.median:,.0f} → {with_it.rate.median:,.0f}",
        f"{with_it.rate.median / without.rate.median:.2f}",
        f"{without.p95.median:.1f} → {with_it.p95.median:.1f}",
        part.claim,
    ]


def compression(body: bytes) -> list[list[str]]:
    """Level, size and time, of the fastest of some."""
    lines: list[list[str]] = []
    for level in LEVELS:
        times = []
        for _ in range(50):
            start = time.perf_counter()
            size = len(zlib.compress(body, level, wbits=31))
            times.append(time.perf_counter() - start)
        lines.append([str(level), f"{size:,}", f"{min(times) * 1e6:,.0f}"])
    return lines


if __name__ == "__main__":
    main()
