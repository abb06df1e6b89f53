"""A job worker within the test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import select

from app.job_queue import open_job_queue
from app.job_worker import JobWorker
from app.jobs import Tools, do
from app.mail import make_mailer
from app.models import OutboxEntry
from app.resources import Resources
from app.services.jobs import JobService
from app.settings import Settings
from tests.process import TIMEOUT


@asynccontextmanager
async def tools_of(settings: Settings, resources: Resources) -> AsyncIterator[Tools]:
    async with open_job_queue(settings) as queue:
        jobs = JobService(resources["sessions"], settings.jobs)
        yield Tools(resources, make_mailer(settings.mail), queue, jobs)


@asynccontextmanager
async def working(settings: Settings, resources: Resources) -> AsyncIterator[Tools]:
    stop = asyncio.Event()
    async with tools_of(settings, resources) as tools:
        running = asyncio.create_task(JobWorker(tools, settings).run(stop))
        try:
            async with asyncio.timeout(TIMEOUT):
                while not await tools.queue.redis.exists(tools.queue.broker.queue_name):
                    await asyncio.sleep(0.01)
            yield tools
        finally:
            stop.set()
            await running


async def waiting(resources: Resources) -> list[OutboxEntry]:
    async with resources["sessions"].current() as session:
        return list(await session.scalars(select(OutboxEntry).order_by(OutboxEntry.id)))


async def work_off(tools: Tools) -> int:
    """Do what waits in the outbox, and what comes of it. How many jobs those were."""
    count = 0
    while entries := await waiting(tools.resources):
        for entry in entries:
            claimed = await tools.jobs.claim(entry.id, entry.attempts)
            assert claimed is not None
            await do(tools, claimed)
            await tools.jobs.finish(claimed)
            count += 1
    return count
