"""Shows what a part has found: in the terminal, as JSON and charts, and in docs/performance.md."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import log2
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.comparison import pages
from benchmarks.comparison.chart import picture
from benchmarks.comparison.results import RESULTS, commit, machine, write_document
from benchmarks.growth.cost import Cost, Costs
from benchmarks.growth.lines import Chart, write
from benchmarks.service import ROOT

ARROW = " → "
UNITS = {"p50": "ms", "worker, servers": "µs of CPU time per response", "memory": "MiB"}


@dataclass(frozen=True)
class Report:
    name: str
    title: str
    charts: Sequence[Chart]
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    data: Mapping[str, Any]
    notes: Sequence[str] = field(default=())  # sentences below the table


def report_of(
    name: str, title: str, x: str, costs: Costs, charts: Sequence[Chart], *notes: str
) -> Report:
    """`x`: what grows, in the plural."""
    places = [*dict.fromkeys(place for points in costs.values() for place in points)]
    logarithm = (1 + log2(places[-1])) / (1 + log2(places[0]))
    every = [cost for points in costs.values() for cost in points.values()]
    counts_rows = any(cost.rows is not None for cost in every)
    head = [
        ARROW.join(number(place) for place in places) + f" {x}",
        *("p50, ms", "CPU of the worker, µs", "CPU of MariaDB and Valkey, µs"),
        *["rows read"] * counts_rows,
        f"CPU, times (a logarithm: {logarithm:.1f})",
    ]
    rows = [[line, *row(points, counts_rows)] for line, points in costs.items()]
    data = {
        line: {number(place): asdict(cost) for place, cost in points.items()}
        for line, points in costs.items()
    }
    if errors := sum(cost.errors for cost in every):
        notes = (*notes, f"{errors} responses were errors.")
    return Report(name, title, charts, head, rows, data, notes)


def row(points: Mapping[float, Cost], counts_rows: bool) -> list[str]:
    costs = [*points.values()]
    rows = ARROW.join(f"{cost.rows or 0:,.0f}" for cost in costs)
    return [
        ARROW.join(f"{cost.p50:,.{2 if cost.p50 < 10 else 0}f}" for cost in costs),
        ARROW.join(f"{cost.worker:,.0f}" for cost in costs),
        ARROW.join(f"{cost.servers:,.0f}" for cost in costs),
        *[rows] * counts_rows,
        f"{costs[-1].cpu / max(costs[0].cpu, 1):.2f}",
    ]


def curves(costs: Costs) -> dict[str, dict[float, float]]:
    """CPU time by line and x."""
    return {
        line: {place: max(cost.cpu, 1) for place, cost in points.items()}
        for line, points in costs.items()
    }


def number(value: float) -> str:
    if value >= 1e6 and value % 1e5 == 0:
        return f"{value / 1e6:g} M"
    return f"{value:,.0f}"


def show(console: Console, report: Report) -> None:
    shown = Table(*report.head, title=report.title)
    for line in report.rows:
        shown.add_row(*line)
    console.print(shown)
    for note in report.notes:
        console.print(note)


def save(folder: Path, images: Path, report: Report, versions: Mapping[str, str]) -> None:
    content = {"title": report.title, "units": UNITS, "notes": report.notes, "data": report.data}
    write_document(folder / f"growth-{report.name}.json", versions, content)
    for chart in report.charts:
        write(images, chart)


def publish(report: Report, versions: Mapping[str, str]) -> None:
    save(RESULTS, ROOT / "docs" / "images", report, versions)
    pictures = [
        picture("images", f"growth-{chart.name}", f"{chart.title}, by {chart.x}")
        for chart in report.charts
    ]
    found = machine()
    where = (
        f"Commit `{commit()}`, on {found['cpus']} CPUs ({found['cpu']}), {found['kernel']},"
        f" Python {found['python']}, MariaDB {versions['MariaDB']}:"
        f" `make bench-growth ONLY={report.name}`."
    )
    content = [*pictures, where, pages.table(report.head, report.rows), *report.notes]
    page = ROOT / "docs" / "performance.md"
    pages.replace(page, f"make bench-growth {report.name}", *content)
