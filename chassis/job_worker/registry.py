"""What a service gives its job workers to run, and what they run it with."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from chassis.jobs.job import Job
from chassis.jobs.metrics import JobMetrics
from chassis.jobs.store import Claimed
from chassis.mail.mailer import Mailer, RecipientRefused
from chassis.mail.metrics import MailMetrics
from chassis.resources import Resources

log = logging.getLogger("app.jobs")


class JobContext(NamedTuple):
    resources: Resources
    mailer: Mailer


Handler = Callable[[JobContext, Any, str], Awaitable[None]]  # with the job and its idempotency key


class PeriodicJob(NamedTuple):
    every: int  # s; also the longest time for one run, so that two never overlap
    run: Callable[[JobContext], Awaitable[None]]


class Registry(NamedTuple):
    """What job workers of a service run.

    Handlers run the jobs of the outbox, by the class of the job. Periodic jobs, by their name, are
    run once in their interval by one of the workers, and have no row: if one is missed, the next
    does the same. See docs/jobs.md.
    """

    handlers: Mapping[type[Job], Handler]
    periodic: Mapping[str, PeriodicJob]
    templates: Path  # of mails

    async def run_job(self, context: JobContext, claimed: Claimed) -> None:
        """Raises what the job raises, and LookupError where this version knows no such job.

        A recipient that the mail server refuses, at once or in every attempt, is no failure of the
        job: people choose the address when they register, and must not be able to make dead jobs.
        """
        for kind, handler in self.handlers.items():
            if kind.name == claimed.job:
                # The same in each attempt, and another in a second deployment.
                key = f"{claimed.key}-{claimed.created_at:%Y%m%dT%H%M%S%f}"
                try:
                    return await handler(context, kind.model_validate_json(claimed.payload), key)
                except RecipientRefused as refused:
                    if not (refused.for_good or claimed.is_last_attempt):
                        raise
                    context.resources["metrics"].of(MailMetrics).mails["refused"].inc()
                    extra = {"job": claimed.job, "key": claimed.key}
                    return log.warning(
                        "An account cannot be reached by mail: %s", refused, extra=extra
                    )
        raise LookupError(f"This version knows no job {claimed.job}")


async def tick(context: JobContext) -> None:
    """That periodic jobs are run shows in the time of the last one."""
    context.resources["metrics"].of(JobMetrics).job_tick.set_to_current_time()


TICK = {"tick": PeriodicJob(60, tick)}
