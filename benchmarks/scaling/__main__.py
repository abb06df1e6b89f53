"""`make bench-scaling`: a queueing model beside what one worker and two do, and what rates take.

QUICK=1 takes half a minute and writes below var/ only.
"""

import os
from collections.abc import Mapping, Sequence
from statistics import median

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.comparison import generated, pages
from benchmarks.comparison.chart import picture
from benchmarks.comparison.publish import conditions
from benchmarks.comparison.results import RESULTS, write_document
from benchmarks.comparison.stage import VAR, Stage, prepared
from benchmarks.growth.lines import Chart, write
from benchmarks.scaling.measured import CLIENTS, CPUS, Points, demands, measure, resources
from benchmarks.scaling.model import closed
from benchmarks.scaling.sizing import MIX, RATES, mixed, size_for
from benchmarks.service import ROOT
from chassis.development.private_servers import ServerUnavailable

Tables = Mapping[str, tuple[Sequence[str], Sequence[Sequence[str]]]]

UNITS = {"rate": "1/s", "response": "ms", "others": "µs of CPU time per response"}
CPU_TIMES = ("worker", "mariadb", "valkey", "client")
CHECK = [
    "requests",
    "workers",
    "clients",
    "model, 1/s",
    "measured, 1/s",
    "error",
    "model, ms",
    "measured, ms",
]
COSTS = ["requests", "share", "worker, µs", "MariaDB, µs", "Valkey, µs", "body, bytes"]
SIZES = [
    *("requests/s", "workers, each with a CPU", "CPUs of MariaDB", "CPUs of Valkey"),
    *("connections in use", "connections that may open", "network, Gbit/s"),
]


def main() -> None:
    console = Console(width=140)
    quick = bool(os.environ.get("QUICK"))
    rounds, seconds = (1, 0.2) if quick else (5, 0.7)
    console.print("Starting MariaDB and Valkey, and importing the catalogue ...")
    try:
        with (
            prepared(generated.BOOKS // 10 if quick else generated.BOOKS) as stage,
            Progress(console=console, transient=True) as progress,
        ):
            total = rounds * len(MIX) * len(CPUS) * len(CLIENTS)
            task = progress.add_task("", total=total)
            points, sizes, entry = measure(
                stage,
                rounds,
                seconds,
                lambda part: progress.update(task, advance=1, description=part),
            )
    except ServerUnavailable as error:
        raise SystemExit(str(error)) from None
    tables: Tables = {
        "Model and measurement": (CHECK, compared(points)),
        "CPU time of a request": (COSTS, costs(points, sizes)),
        "What a rate takes": (SIZES, rates(points, sizes)),
    }
    for title, (head, rows) in tables.items():
        shown = Table(*head, title=title)
        for row in rows:
            shown.add_row(*row)
        console.print(shown)
    notes = [verdict(points), memory(entry)]
    for note in notes:
        console.print(note)
    publish(stage, points, tables, notes, quick)


def compared(points: Points) -> list[list[str]]:
    rows = []
    for (kind, workers, clients), at in sorted(points.items(), key=lambda item: order(item[0])):
        model = closed(resources(points, kind, workers), clients)
        rows.append(
            [
                *(kind, f"{workers}", f"{clients}", f"{model.rate:,.0f}", f"{at.rate:,.0f}"),
                f"{model.rate / at.rate - 1:+.0%}",
                *(f"{model.response * 1000:.2f}", f"{at.response * 1000:.2f}"),
            ]
        )
    return rows


def order(key: tuple[str, int, int]) -> tuple[int, int, int]:
    kind, workers, clients = key
    return [*MIX].index(kind), workers, clients


def costs(points: Points, sizes: Mapping[str, float]) -> list[list[str]]:
    return [
        [
            *(kind, f"{MIX[kind]:.0%}"),
            *(f"{time * 1e6:,.0f}" for time in (each.worker, each.mariadb, each.valkey)),
            f"{each.size:,.0f}",
        ]
        for kind, each in demands(points, sizes).items()
    ]


def rates(points: Points, sizes: Mapping[str, float]) -> list[list[str]]:
    demand = mixed(demands(points, sizes))
    # A request has a connection for no longer than it takes; one from the cache has none.
    held = sum(MIX[kind] * points[kind, 1, 1].response for kind in MIX if "cached" not in kind)
    found = [size_for(rate, demand, held) for rate in RATES]
    return [
        [
            *(f"{each.rate:,}", f"{each.workers:,}", f"{each.mariadb:,}", f"{each.valkey:,}"),
            *(f"{each.busy:,.1f}", f"{each.open:,}", f"{each.network:,.2f}"),
        ]
        for each in found
    ]


def verdict(points: Points) -> str:
    def errors(workers: int, clients: Sequence[int]) -> str:
        def model(kind: str, count: int) -> float:
            return closed(resources(points, kind, workers), count).rate

        found = [
            abs(model(kind, count) / points[kind, workers, count].rate - 1)
            for kind in MIX
            for count in clients
        ]
        return f"{median(found):.0%}, at most {max(found):.0%}"

    few, many = CLIENTS[:3], CLIENTS[3:]
    return (
        "Error of the model's rate, median: "
        f"one worker with {many[0]} clients and more {errors(1, many)}; "
        f"two {errors(2, many)}; with fewer clients {errors(1, few)} and {errors(2, few)}."
    )


def memory(entry: float) -> str:
    return (
        f"A cached book takes {entry:,.0f} bytes of Valkey's memory with its key, its tag and the"
        f" tag's token: a million of them {entry:,.0f} MB."
    )


def publish(
    stage: Stage, points: Points, tables: Tables, notes: Sequence[str], quick: bool
) -> None:
    folder = VAR / "bench" if quick else RESULTS
    found = [
        {
            "kind": kind,
            "workers": workers,
            "clients": clients,
            "rate": at.rate,
            "response": at.response * 1e3,
            **{name: getattr(at, name) * 1e6 for name in CPU_TIMES},
        }
        for (kind, workers, clients), at in points.items()
    ]
    content = {"title": "One worker and two", "units": UNITS, "data": found}
    write_document(folder / "scaling.json", stage.versions, content)
    drawn = chart(points)
    write(folder if quick else ROOT / "docs" / "images", drawn)
    if quick:
        return
    page = ROOT / "docs" / "scaling.md"
    check, *rest = [pages.table(head, rows, 1) for head, rows in tables.values()]
    head = picture("images", f"growth-{drawn.name}", f"{drawn.title}, by {drawn.x}")
    where = conditions(len(stage.books))
    pages.replace(page, "make bench-scaling check", head, where, notes[0], check)
    pages.replace(page, "make bench-scaling costs", rest[0], notes[1])
    pages.replace(page, "make bench-scaling sizes", rest[1])


def chart(points: Points) -> Chart:
    lines: dict[str, dict[float, float]] = {}
    for kind in ("book, cached", "page of 20"):
        for workers in CPUS:
            name = f"{kind}, {workers} worker{'s' * (workers > 1)}"
            lines[f"{name}: measured"] = {n: points[kind, workers, n].rate for n in CLIENTS}
            parts = resources(points, kind, workers)
            lines[f"{name}: model"] = {n: closed(parts, n).rate for n in CLIENTS}
    return Chart("scaling", "Responses per second", "clients", lines, pairs=True)


if __name__ == "__main__":
    main()
