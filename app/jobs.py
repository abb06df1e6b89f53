"""What job workers run: a handler for each job of the outbox, and periodic jobs."""

import logging
from datetime import timedelta
from pathlib import Path

from app.about import TITLE
from app.sample import jobs as sample  # sample
from app.schemas.job import SendWelcome
from app.services.accounts.deletion import DeletionService
from app.services.accounts.mailed import jobs as mailed
from app.services.accounts.users import UserService
from app.services.retention import RetentionService
from chassis.errors import NotFound
from chassis.files.orphans import UsedKeys, sweep_orphans
from chassis.job_worker.registry import Handler, JobContext, PeriodicJob, Registry
from chassis.jobs.job import Job

log = logging.getLogger("app.jobs")

ORPHANED = timedelta(hours=1)
FILE_OWNERS: dict[str, UsedKeys] = {}  # by the folder of their files
FILE_OWNERS |= sample.FILE_OWNERS  # sample
CLEAN_FOR = 40  # s; in one run


async def send_welcome(context: JobContext, job: SendWelcome, key: str) -> None:
    try:
        user = await UserService(context.resources).get(job.user_id)
    except NotFound:
        return  # it was deleted meanwhile
    # No name in the mail: it could carry an advertisement to the address of a stranger.
    subject = f"Welcome to {TITLE}"
    shown = {"title": TITLE, "subject": subject}
    await context.mailer.send(user.email, subject, "welcome", shown, key)


# Each may run twice: its worker may die between the work and the deletion of the row. `key` is the
# same in each run.
HANDLERS: dict[type[Job], Handler] = {
    SendWelcome: send_welcome,
    **mailed.HANDLERS,
}
HANDLERS |= sample.HANDLERS  # sample


async def clean(context: JobContext) -> None:
    await RetentionService(context.resources).clean(CLEAN_FOR)


async def sweep_files(context: JobContext) -> None:
    resources = context.resources
    if resources["storage"] is not None:
        # Longer than an upload takes, and than a URL is good that was given out just before.
        orphaned = max(ORPHANED, timedelta(seconds=2 * resources["settings"].files.url_ttl))
        await sweep_orphans(resources["sessions"], resources["storage"], FILE_OWNERS, orphaned)


async def delete_accounts(context: JobContext) -> None:
    await DeletionService(context.resources).delete_all(CLEAN_FOR)


# To miss one costs nothing, as the next one does the same.
PERIODIC_JOBS = {
    "clean": PeriodicJob(60, clean),
    "delete_accounts": PeriodicJob(60, delete_accounts),
    "sweep_files": PeriodicJob(3600, sweep_files),
}
PERIODIC_JOBS |= sample.PERIODIC_JOBS  # sample

REGISTRY = Registry(HANDLERS, PERIODIC_JOBS, Path(__file__).parent / "templates")
