"""Work that must happen: written in the transaction of its cause, relayed after the commit.

https://microservices.io/patterns/data/transactional-outbox.html
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from app.background import background
from app.job_queue import QUEUE_ERRORS, JobQueue
from app.models import OutboxEntry
from app.models.base import now
from app.request_context import current_request
from app.schemas.job import Job

HEAD_START = timedelta(seconds=10)  # of the relay, before the sweep takes the entry for forgotten
MAX_WAITING = 1000  # entries; what is above that is left to the sweep, too

log = logging.getLogger("app.outbox")


class Outbox:
    def __init__(self, queue: JobQueue) -> None:
        self.queue = queue
        self._waiting: deque[int] = deque(maxlen=MAX_WAITING)
        self._wake = asyncio.Event()

    async def write(self, session: AsyncSession, job: Job, key: str) -> int:
        """Before the commit; gives the id for `relay`. There is one entry for each `key`."""
        request = current_request.get()
        entry = OutboxEntry(
            key=key,
            job=job.name,
            payload=job.model_dump_json(),
            request_id=request and request.id,
            due_at=now() + HEAD_START,
        )
        session.add(entry)
        await session.flush()
        return entry.id

    def relay(self, entry_id: int) -> None:
        """After the commit. It takes no time and cannot fail: the sweep makes up for what does."""
        self._waiting.append(entry_id)
        self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while self._waiting:
                    await self.queue.send(self._waiting[0], 0)
                    self._waiting.popleft()
            except QUEUE_ERRORS as error:
                log.warning("%d jobs wait for the sweep: %s", len(self._waiting), error)
                self._waiting.clear()


@asynccontextmanager
async def open_outbox(queue: JobQueue) -> AsyncIterator[Outbox]:
    outbox = Outbox(queue)
    async with background(outbox.run(), "outbox"):
        yield outbox
