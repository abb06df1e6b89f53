import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from chassis.database.engines import open_database
from chassis.database.timing import DatabaseTiming
from chassis.jobs.store import JobStore
from chassis.service_settings import ChassisSettings
from chassis.telemetry.metrics import Metrics


async def care_for_jobs(
    settings: ChassisSettings,
    console: Console,
    *,
    requeue: int | None,
    requeue_all: bool,
    discard: int | None,
) -> None:
    """Try dead jobs again, or forget one; then show what waits and which are dead."""
    timing = DatabaseTiming(Metrics(), settings.log.slow_statement, settings.database.max_waiting)
    async with open_database(settings.database, timing) as sessions:
        store = JobStore(sessions, settings.jobs)
        if requeue is not None or requeue_all:
            count = await store.requeue(None if requeue_all else requeue)
            if not count:
                raise SystemExit("There is no such dead job")
            typer.echo(f"{count} jobs will be tried again")
        if discard is not None:
            if not await store.discard(discard):
                raise SystemExit("There is no such dead job")
            typer.echo(f"Job {discard} is forgotten")
        backlog = await store.backlog()
        dead = await store.dead()
    typer.echo(f"{backlog.waiting} jobs wait, the oldest for {backlog.oldest:.0f} s")
    typer.echo(f"{backlog.dead} jobs are dead")
    if dead:
        table = Table("id", "job", "key", "attempts", "dead since", "last error")
        for entry in dead:
            since = f"{entry.dead_at:%Y-%m-%d %H:%M:%S}"
            row = (entry.id, entry.job, entry.key, entry.attempts, since, entry.error)
            table.add_row(*(escape(str(cell)) for cell in row))
        console.print(table)
