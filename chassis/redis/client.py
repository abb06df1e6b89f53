"""The pooled Redis client of one worker, for the few commands that need their own connection."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from chassis.redis.metrics import RedisMetrics
from chassis.redis.server import NOT_PRIMARY, RedisServer
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
        except (RedisError, OSError) as error:
            self.metrics.redis_error(args[0])
            if isinstance(error, NOT_PRIMARY):
                await self.connection_pool.disconnect(inuse_connections=False)
            raise
        finally:
            seconds = time.perf_counter() - start
            self.metrics.observe_redis(args[0], seconds)
            if (request := current_request.get()) is not None:
                request.add_time("cache", seconds)


@asynccontextmanager
async def open_redis(server: RedisServer, metrics: Metrics) -> AsyncIterator[Redis]:
    """A client that connects when it is first used."""
    pool = BlockingConnectionPool(
        max_connections=server.settings.max_connections,
        timeout=server.settings.pool_timeout,
        **server.options,
    )
    client = TimedRedis(connection_pool=pool)
    client.metrics, client.tracing = metrics.of(RedisMetrics), Tracing()
    try:
        yield client
    finally:
        await client.aclose(close_connection_pool=True)
