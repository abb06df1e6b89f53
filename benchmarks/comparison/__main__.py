"""`make bench`: responses per second, their times, CPU time and memory, of ours and of others.

Each service has one worker on a CPU of its own; MariaDB, Valkey, sellers and clients share the
others. QUICK=1 takes two minutes and writes below var/ only.
"""

import os
from contextlib import ExitStack

from rich.console import Console
from rich.progress import Progress

from benchmarks.comparison import generated, publish, results
from benchmarks.comparison.measure import QUICK, Plan, Turn, measure
from benchmarks.comparison.routes import DESIGNS, check_same, routes
from benchmarks.comparison.stage import VAR, Stage, prepared
from benchmarks.service import ROOT
from chassis.development.private_servers import ServerUnavailable


def main() -> None:
    console = Console(width=120)
    quick = bool(os.environ.get("QUICK"))
    plan = QUICK if quick else Plan()
    console.print("Starting MariaDB and Valkey, and importing the catalogue ...")
    try:
        with prepared(generated.BOOKS // 10 if quick else generated.BOOKS) as stage:
            measured, memory = compare(stage, plan, console)
    except ServerUnavailable as error:
        raise SystemExit(str(error)) from None
    publish.show(console, measured, memory)
    books = len(stage.books)
    folder = VAR / "bench" if quick else results.RESULTS
    more = {"books": books, "memory": memory}
    results.write(folder / "comparison.json", measured, stage.versions, plan, more)
    if quick:
        publish.draw(folder, measured)
        console.print(f"Charts and figures are in {folder.relative_to(ROOT)}, not in docs/")
    else:
        publish.publish(ROOT / "docs", ROOT / "README.md", measured, memory, books)
    raise SystemExit(any(summary.errors for summary in measured.values()))


def compare(stage: Stage, plan: Plan, console: Console) -> tuple[publish.Results, dict[str, float]]:
    """The results, and the private memory after them, MiB."""
    with ExitStack() as stack:
        services = {design: stack.enter_context(stage.running(design)) for design in DESIGNS}
        asked = routes(stage.books)
        for route in asked:
            check_same(route, {design: service.url for design, service in services.items()})
        turns = [
            Turn(route.name, design, services[design], paths, route.headers)
            for route in asked
            for design, paths in route.paths.items()
        ]
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("", total=len(turns) * (plan.rounds + 1))

            def advance(part: str) -> None:
                progress.update(task, advance=1, description=part)

            measured = results.summaries(measure(turns, plan, advance))
        return measured, {name: service.private_memory() for name, service in services.items()}


if __name__ == "__main__":
    main()
