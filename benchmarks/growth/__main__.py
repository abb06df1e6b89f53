"""`make bench-growth`: how the cost of a request grows with books, pages, routes, connections ...

ONLY=tables,depth measures some parts, COUNT= says how many requests the part about memory sends.
QUICK=1 takes two minutes, with small catalogues, and writes below var/ only.
"""

import os
from collections.abc import Callable

from rich.console import Console
from rich.progress import Progress

from benchmarks.comparison.stage import VAR, servers
from benchmarks.growth import catalogue, connections, memory, renames, report, sizes, tables
from benchmarks.growth.cost import PLAN, QUICK, settle
from benchmarks.growth.setup import Setup
from benchmarks.service import ROOT
from chassis.development.private_servers import ServerUnavailable

PARTS: dict[str, Callable[[Setup], report.Report]] = {
    "routes": sizes.measure_routes,
    "sizes": sizes.measure_sizes,
    "tags": sizes.measure_tags,
    "connections": connections.measure_connections,
    "tables": tables.measure_tables,
    "depth": tables.measure_depth,
    "searches": tables.measure_searches,
    "renames": renames.measure_renames,
    "memory": memory.measure_memory,
}
BOOKS = (10_000, 100_000, 1_000_000)
FEW_BOOKS = (1_000, 4_000, 16_000)
REQUESTS = 1_000_000


def main() -> None:
    console = Console(width=140)
    quick = bool(os.environ.get("QUICK"))
    names = (os.environ.get("ONLY") or ",".join(PARTS)).split(",")
    if unknown := [name for name in names if name not in PARTS]:
        raise SystemExit(f"ONLY: there is no part {unknown[0]}; there are {', '.join(PARTS)}")
    requests = int(os.environ.get("COUNT") or (20_000 if quick else REQUESTS))
    books = FEW_BOOKS if quick else BOOKS
    try:
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("Catalogues", total=sum(books))
            catalogue.fill(books, lambda count: progress.advance(task, count))
            progress.remove_task(task)
            with servers(catalogue.DATA, catalogue.OPTIONS) as stage:
                settle(stage)
                plan = QUICK if quick else PLAN
                setup = Setup(stage, plan, books, requests, quick, progress)
                for name in names:
                    finish(PARTS[name](setup), console, stage.versions, quick)
    except ServerUnavailable as error:
        raise SystemExit(str(error)) from None


def finish(found: report.Report, console: Console, versions: dict[str, str], quick: bool) -> None:
    report.show(console, found)
    if quick:
        folder = VAR / "bench"
        report.save(folder, folder, found, versions)
        console.print(f"Charts and figures are in {folder.relative_to(ROOT)}, not in docs/")
    else:
        report.publish(found, versions)


if __name__ == "__main__":
    main()
