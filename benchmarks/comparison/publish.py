"""Shows what was measured: in the terminal, as charts, and as tables in docs/performance.md."""

from collections.abc import Mapping
from pathlib import Path
from textwrap import fill

from rich.console import Console
from rich.table import Table

from benchmarks.comparison import chart, pages
from benchmarks.comparison.measure import CLIENTS
from benchmarks.comparison.results import Summary, commit, machine
from benchmarks.comparison.routes import DESIGNS

Results = Mapping[tuple[str, str], Summary]  # by route and design

HEAD = ["route", "design", "1/s", "p50", "p95", "p99", "errors", "CPU, µs", "to limit", "spread"]
MARKER = "make bench"
RATES = "throughput", "Responses per second of one worker, more is better"
COSTS = "cpu", "CPU time of the worker per response, µs, less is better"


def show(console: Console, results: Results, memory: Mapping[str, float]) -> None:
    shown = Table(*HEAD, title="One worker, 32 clients; response times in ms")
    for column in shown.columns[2:]:
        column.justify = "right"
    for row in rows(results):
        shown.add_row(*row, end_section=row[1] == "ours")
    console.print(shown)
    for design, mebibytes in memory.items():
        console.print(f"Private memory after it, {DESIGNS[design]}: {mebibytes:.0f} MiB")


def rows(results: Results) -> list[list[str]]:
    """A row for each route and design."""
    return [
        [
            *(route, design, f"{summary.rate.median:,.0f}"),
            *(f"{each.median:.1f}" for each in (summary.p50, summary.p95, summary.p99)),
            *(str(summary.errors), f"{summary.cpu.median:,.0f}"),
            f"{summary.cpu.median / results[route, 'limit'].cpu.median:.1f}"
            if (route, "limit") in results
            else "",
            f"± {summary.cpu.spread:.0%}",
        ]
        for (route, design), summary in results.items()
    ]


def draw(folder: Path, results: Results) -> None:
    rates: dict[str, dict[str, float]] = {}
    costs: dict[str, dict[str, float]] = {}
    for (route, design), summary in results.items():
        rates.setdefault(route, {})[design] = summary.rate.median
        costs.setdefault(route, {})[design] = summary.cpu.median
    for (name, title), values in ((RATES, rates), (COSTS, costs)):
        chart.write(folder, name, title, values, SHORT_NAMES)


SHORT_NAMES = {
    "limit": "the limit",
    "bare": "bare FastAPI",
    "before": "before",
    "literature": "literature",
    "ours": "this service",
}


def publish(
    docs: Path, readme: Path, results: Results, memory: Mapping[str, float], books: int
) -> None:
    draw(docs / "images", results)
    figures = pages.table(HEAD, rows(results), texts=2)
    mebibytes = pages.table(
        ["private memory of the worker after all of it", "MiB"],
        [[DESIGNS[design], f"{value:.0f}"] for design, value in memory.items()],
    )
    pictures = [chart.picture("images", name, title) for name, title in (RATES, COSTS)]
    content = [*pictures, conditions(books), figures, mebibytes]
    pages.replace(docs / "performance.md", MARKER, *content)
    pages.replace(readme, MARKER, chart.picture("docs/images", *RATES), sentence(results))


def conditions(books: int) -> str:
    found = machine()
    return (
        f"Commit `{commit()}`, {books:,} books, {CLIENTS} clients, on {found['cpus']} CPUs"
        f" ({found['cpu']}), {found['kernel']}, Python {found['python']}."
    )


def sentence(results: Results) -> str:
    def times(route: str, design: str) -> str:
        ratio = results[route, "ours"].rate.median / results[route, design].rate.median
        return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}"

    return fill(
        f"An uncached page of 20 books: {times('page of 20', 'before')} times the responses per"
        f" second of the service that articles warn of, and {times('page of 20', 'literature')}"
        " times those of the service that they recommend; a cached book"
        f" {times('book, cached', 'before')} and {times('book, cached', 'literature')} times"
        " ([performance](docs/performance.md)).",
        width=118,
    )
