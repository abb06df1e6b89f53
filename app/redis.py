"""The connection pool to the Redis-protocol server of one worker."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.settings import RedisSettings


@asynccontextmanager
async def open_redis(settings: RedisSettings) -> AsyncIterator[Redis]:
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
    client = Redis.from_pool(pool)
    try:
        yield client
    finally:
        await client.aclose()
