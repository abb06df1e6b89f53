import asyncio
from collections.abc import Callable

from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from chassis.clock import now
from chassis.jobs.job import Job
from chassis.jobs.model import OutboxEntry
from chassis.redis.shared_connection import SharedConnection
from chassis.request_context import current_request

RECONNECT = 1  # s
PING_EVERY = 30  # s; so that a connection that the network has dropped silently is noticed


class Outbox:
    """Writes jobs in the transaction of their cause: both are committed, or neither.

    Job workers take them from the table. After the commit a message on a Redis channel wakes idle
    workers; it says only that there is work, and without it they find the job within a second. See
    docs/jobs.md and https://microservices.io/patterns/data/transactional-outbox.html
    """

    def __init__(self, shared: SharedConnection, namespace: str) -> None:
        self.shared = shared
        self.channel = f"{namespace}:jobs"

    async def write(self, session: AsyncSession, job: Job, key: str) -> None:
        """Call it before the commit, which wakes the workers.

        Raises IntegrityError if the outbox still has a job of this `key`.
        """
        request = current_request.get()
        entry = OutboxEntry(
            key=key,
            job=job.name,
            payload=job.model_dump_json(),
            request_id=request and request.id,
            due_at=now(),
        )
        session.add(entry)
        await session.flush()
        event.listen(session.sync_session, "after_commit", self._wake_workers)

    def _wake_workers(self, session: Session) -> None:
        self.shared.send("PUBLISH", self.channel, b"")  # if it fails, workers poll

    async def listen(self, wake: Callable[[], None]) -> None:
        """Call `wake` for each message, on a connection of its own; for job workers."""
        redis = Redis(connection_pool=self.shared.pool)
        while True:
            try:
                async with redis.pubsub(ignore_subscribe_messages=True) as messages:
                    await messages.subscribe(self.channel)
                    while True:
                        message = await messages.get_message(timeout=PING_EVERY)
                        if message is None:
                            await messages.ping()
                        elif message["type"] == "message":  # not the reply to a ping
                            wake()
            except (RedisError, OSError):  # the shared connection has a line in the log
                await asyncio.sleep(RECONNECT)
