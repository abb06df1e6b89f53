"""The client of one worker for the Redis-protocol server: pooled, timed, never waiting long."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from app.metrics import Metrics
from app.request_context import current_request
from app.settings import RedisSettings
from app.tracing import Tracing


class TimedRedis(Redis):
    """Adds the time of each command to the metrics and to the request at hand."""

    metrics: Metrics
    tracing: Tracing

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            with self.tracing.span("redis", args[0]):
                return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except (RedisError, OSError):
            self.metrics.redis_error(args[0])
            raise
        finally:
            seconds = time.perf_counter() - start
            self.metrics.observe_redis(args[0], seconds)
            if (request := current_request.get()) is not None:
                request.spend("cache", seconds)


@asynccontextmanager
async def open_redis(settings: RedisSettings, metrics: Metrics) -> AsyncIterator[Redis]:
    """A client that connects when it is first used and never waits longer than it was told."""
    pool = BlockingConnectionPool.from_url(
        settings.url.get_secret_value(),
        **({"password": settings.password.get_secret_value()} if settings.password else {}),
        max_connections=settings.max_connections,
        timeout=settings.pool_timeout,
        socket_connect_timeout=settings.timeout,
        socket_timeout=settings.timeout,
        # By default a client asks a dead server again and again, for 4 seconds.
        retry=Retry(NoBackoff(), 0),
    )
    client = TimedRedis(connection_pool=pool)
    client.metrics, client.tracing = metrics, Tracing()
    try:
        yield client
    finally:
        await client.aclose(close_connection_pool=True)
