"""What one worker owns and every request shares."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

from redis.asyncio import Redis

from app.database import Sessions, open_database
from app.logs import Output, open_logs
from app.redis import open_redis
from app.settings import Settings


class Resources(TypedDict):
    settings: Settings
    logs: Output
    sessions: Sessions
    redis: Redis


@asynccontextmanager
async def open_resources(settings: Settings) -> AsyncIterator[Resources]:
    """Open what every request shares; close it in reverse, also when start-up fails."""
    async with (
        open_logs(settings.log) as logs,
        open_database(settings.database) as sessions,
        open_redis(settings.redis) as redis,
    ):
        yield Resources(settings=settings, logs=logs, sessions=sessions, redis=redis)
