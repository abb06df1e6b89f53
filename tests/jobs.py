"""A job worker within the test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import select

from app.jobs import REGISTRY
from chassis.job_worker.registry import JobContext, Registry
from chassis.job_worker.worker import JobWorker
from chassis.jobs.model import OutboxEntry
from chassis.jobs.store import JobStore
from chassis.mail.mailer import make_mailer
from chassis.resources import Resources
from chassis.tasks.background import run_alongside
from tests.process import TIMEOUT

# Tests of jobs have the worker for themselves.
ONLY_JOBS = REGISTRY._replace(periodic={})


def job_context(resources: Resources) -> JobContext:
    return JobContext(
        resources, make_mailer(resources["settings"].mail, REGISTRY.templates, resources["metrics"])
    )


def job_store(resources: Resources) -> JobStore:
    return JobStore(resources["sessions"], resources["settings"].jobs)


@asynccontextmanager
async def working(resources: Resources, registry: Registry = ONLY_JOBS) -> AsyncIterator[JobWorker]:
    worker = JobWorker(job_context(resources), registry)
    listeners = await listeners_of(resources)
    async with run_alongside(resources["outbox"].listen(worker.wake)):
        running = asyncio.create_task(worker.run())
        try:
            async with asyncio.timeout(TIMEOUT):
                while await listeners_of(resources) == listeners:
                    await asyncio.sleep(0.01)
            yield worker
        finally:
            worker.stop()
            await running


async def listeners_of(resources: Resources) -> int:
    outbox = resources["outbox"]
    [_, listeners] = await outbox.shared.call("PUBSUB", "NUMSUB", outbox.channel)
    return int(listeners)


async def waiting(resources: Resources) -> list[OutboxEntry]:
    async with resources["sessions"].current() as session:
        return list(await session.scalars(select(OutboxEntry).order_by(OutboxEntry.id)))


async def work_off(resources: Resources) -> int:
    """Run what waits in the outbox, and what comes of it. How many jobs those were."""
    context, store = job_context(resources), job_store(resources)
    count = 0
    while claimed := await store.claim(100):
        for each in claimed:
            await REGISTRY.run_job(context, each)
            await store.finish(each)
            count += 1
    return count
