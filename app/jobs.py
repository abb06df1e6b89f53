"""What job workers do: once for each entry of the outbox, and again and again."""

import logging
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, NamedTuple

from app.accounts import users_of
from app.errors import NotFound
from app.job_queue import JobQueue
from app.mail import Mailer, Undeliverable
from app.resources import Resources
from app.schemas.job import Job, RebuildWords, SendWelcome
from app.schemas.page import MAX_LIMIT
from app.services.cleaning import CleaningService
from app.services.covers import sweep_covers
from app.services.jobs import Claimed, JobService
from app.services.rankings import RankingService
from app.services.words import WordService

log = logging.getLogger("app.jobs")

ORPHANED = timedelta(hours=1)
REBUILD_FOR = 40  # s; in one run, so that it ends within its time
MAX_RELAYED = 500  # entries in one sweep, so that its messages find room in the queue


class Tools(NamedTuple):
    resources: Resources
    mailer: Mailer
    queue: JobQueue
    jobs: JobService


async def send_welcome(tools: Tools, job: SendWelcome, key: str) -> None:
    try:
        user = await users_of(tools.resources).get(job.user_id)
    except NotFound:
        return  # it was deleted meanwhile
    values = {"name": user.name, "email": user.email}
    try:
        await tools.mailer.send(user.email, "Welcome to Books", "welcome", values, key)
    except Undeliverable as error:
        log.warning("Account %d cannot be reached by mail: %s", user.id, error)


async def rebuild_words(tools: Tools, job: RebuildWords, key: str) -> None:
    await _words(tools).rebuild_of_author(job)


# Each may be done twice: its worker may die between the work and the word that it is done.
JOBS: dict[type[Job], Callable[[Tools, Any, str], Awaitable[None]]] = {
    RebuildWords: rebuild_words,
    SendWelcome: send_welcome,
}


async def do(tools: Tools, claimed: Claimed) -> None:
    """Raises what the job raises, and LookupError where this version knows no such job."""
    for kind, work in JOBS.items():
        if kind.name == claimed.job:
            # The same in each attempt, and another in a second deployment.
            key = f"{claimed.key}-{claimed.created_at:%Y%m%dT%H%M%S%f}"
            return await work(tools, kind.model_validate_json(claimed.payload), key)
    raise LookupError(f"This version knows no job {claimed.job}")


async def tick(tools: Tools) -> None:
    """That scheduler, queue and workers go hand in hand is seen in the time of the last one."""
    tools.resources["metrics"].job_tick.set_to_current_time()
    await tools.queue.forget_workers()


async def sweep_outbox(tools: Tools) -> None:
    """Relay what is due: what was forgotten or lost on the way, and what has failed."""
    room = MAX_RELAYED - await tools.queue.waiting()
    if room > 0:
        for entry_id, attempts in await tools.jobs.take_due(room):
            await tools.queue.send(entry_id, attempts)


async def refresh_rankings(tools: Tools) -> None:
    """So that no visitor is the one who waits for them."""
    await RankingService(tools.resources["sessions"], tools.resources["cache"]).books(MAX_LIMIT)


async def clean(tools: Tools) -> None:
    resources = tools.resources
    await CleaningService(resources["sessions"], resources["settings"].tokens).clean()


async def sweep_files(tools: Tools) -> None:
    resources = tools.resources
    await resources["uploads"].clean()
    if resources["storage"] is not None:
        # Longer than an upload takes, and than a URL is good that was given out just before.
        orphaned = max(ORPHANED, timedelta(seconds=2 * resources["settings"].files.url_ttl))
        await sweep_covers(resources["sessions"], resources["storage"], orphaned)


async def rebuild_outdated_words(tools: Tools) -> None:
    """After a deploy that splits texts in another way; the next one goes on."""
    ends_at = time.monotonic() + REBUILD_FOR
    while time.monotonic() < ends_at and await _words(tools).rebuild_outdated():
        pass


def _words(tools: Tools) -> WordService:
    resources = tools.resources
    return WordService(resources["sessions"], resources["cache"], resources["outbox"])


class Repeated(NamedTuple):
    every: int  # s
    work: Callable[[Tools], Awaitable[None]]
    timeout: int = 60  # s


# To miss one costs nothing, as the next one does the same.
REPEATED = {
    "tick": Repeated(60, tick),
    "sweep_outbox": Repeated(5, sweep_outbox),
    "refresh_rankings": Repeated(60, refresh_rankings),
    "clean": Repeated(3600, clean),
    "rebuild_outdated_words": Repeated(60, rebuild_outdated_words),
    "sweep_files": Repeated(3600, sweep_files, timeout=1800),
}
