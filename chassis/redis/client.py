"""The pooled Redis client of one worker, for the few commands that need their own connection."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from chassis.redis.metrics import RedisMetrics
from chassis.redis.settings import RedisSettings
from chassis.request_context import current_request
from chassis.telemetry.metrics import Metrics
from chassis.telemetry.tracing import Tracing


class TimedRedis(Redis):
    metrics: RedisMetrics
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
                request.add_time("cache", seconds)


def pool_options(settings: RedisSettings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "socket_connect_timeout": settings.timeout,
        "socket_timeout": settings.timeout,
        # By default redis-py retries an unreachable server for 4 seconds.
        "retry": Retry(NoBackoff(), 0),
    }
    if settings.password:
        options["password"] = settings.password.get_secret_value()
    return options


@asynccontextmanager
async def open_redis(settings: RedisSettings, metrics: Metrics) -> AsyncIterator[Redis]:
    """A client that connects when it is first used."""
    pool = BlockingConnectionPool.from_url(
        settings.url.get_secret_value(),
        max_connections=settings.max_connections,
        timeout=settings.pool_timeout,
        **pool_options(settings),
    )
    client = TimedRedis(connection_pool=pool)
    client.metrics, client.tracing = metrics.of(RedisMetrics), Tracing()
    try:
        yield client
    finally:
        await client.aclose(close_connection_pool=True)
