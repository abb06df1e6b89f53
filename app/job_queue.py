"""The Redis stream that carries jobs to whoever does them next.

A message is only word of work: which row of the outbox, and after how many attempts. What must
not be lost is the row.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from taskiq import AckableMessage
from taskiq.exceptions import SendTaskError
from taskiq.kicker import AsyncKicker
from taskiq_redis import RedisStreamBroker

from app.background import end
from app.settings import Settings

DELIVER = "deliver"  # (entry_id, attempts)
REPEAT = "repeat"  # (name)
GROUP = "workers"
MAX_LENGTH = 10_000  # messages; the oldest go, and their rows are relayed again
BLOCK = 2  # s; longest question for new messages
TIMEOUT = 5  # s; more than that
IDLE = 120  # s; a message that a worker has for longer is another's
FORGOTTEN = 3600  # s; a worker that has not asked for so long is no more

# What the client raises where Redis is away.
QUEUE_ERRORS = (RedisError, OSError, SendTaskError)


class StreamBroker(RedisStreamBroker):
    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """As taskiq's, which a stop may find deaf: one cancellation of a hundred is lost in it.

        Nor does it matter if a message cannot be acknowledged: when it comes again, its work is
        done.
        """
        messages = super().listen()
        try:
            while True:
                reading = asyncio.ensure_future(anext(messages))
                try:
                    await asyncio.wait({reading})
                finally:
                    await end(reading)
                message = reading.result()
                yield AckableMessage(data=message.data, ack=partial(_try, message.ack))
        finally:
            await messages.aclose()


async def _try(ack: Callable[[], Any]) -> None:
    with suppress(*QUEUE_ERRORS):
        await ack()


class JobQueue:
    def __init__(self, broker: StreamBroker) -> None:
        self.broker = broker
        self.redis: Redis = Redis(connection_pool=broker.connection_pool)

    async def send(self, entry_id: int, attempts: int) -> None:
        """Raises QUEUE_ERRORS."""
        kicker: AsyncKicker[[int, int], None] = AsyncKicker(DELIVER, self.broker, labels={})
        await kicker.kiq(entry_id, attempts)

    async def waiting(self) -> int:
        """Messages that nobody has taken yet."""
        return sum(group["lag"] or 0 for group in await self.redis.xinfo_groups(self._stream))

    async def forget_workers(self) -> None:
        """Each worker has a name of its own in the group, which outlives it."""
        for worker in await self.redis.xinfo_consumers(self._stream, GROUP):
            if worker["idle"] > FORGOTTEN * 1000 and not worker["pending"]:
                await self.redis.xgroup_delconsumer(self._stream, GROUP, worker["name"])

    @property
    def _stream(self) -> str:
        return self.broker.queue_name


@asynccontextmanager
async def open_job_queue(settings: Settings) -> AsyncIterator[JobQueue]:
    """A queue that connects when it is first used."""
    broker = make_broker(settings)
    try:
        yield JobQueue(broker)
    finally:
        await broker.shutdown()


def make_broker(settings: Settings) -> StreamBroker:
    url, password = settings.jobs.url, settings.jobs.password
    if url is None:
        url, password = settings.redis.url, settings.redis.password
    options: dict[str, Any] = {"password": password.get_secret_value()} if password else {}
    return StreamBroker(
        url.get_secret_value(),
        queue_name=f"{settings.cache.namespace}:jobs",
        consumer_group_name=GROUP,
        consumer_id="0",  # a new group begins with what was there before it
        maxlen=MAX_LENGTH,
        xread_block=BLOCK * 1000,
        xread_count=settings.jobs.concurrency,
        idle_timeout=IDLE * 1000,
        unacknowledged_lock_timeout=TIMEOUT,
        socket_timeout=TIMEOUT,
        socket_connect_timeout=TIMEOUT,
        retry=Retry(NoBackoff(), 0),
        **options,
    )
