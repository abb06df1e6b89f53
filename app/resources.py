"""What one worker owns and every request shares."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

from redis.asyncio import Redis

from app.database import Sessions, open_database
from app.database_timing import DatabaseTiming
from app.logs import Output, open_logs
from app.metrics import Metrics
from app.monitor import open_monitor
from app.redis import open_redis
from app.request_context import InFlight
from app.settings import Settings


class Resources(TypedDict):
    settings: Settings
    metrics: Metrics
    logs: Output
    sessions: Sessions
    redis: Redis
    in_flight: InFlight


@asynccontextmanager
async def open_resources(settings: Settings) -> AsyncIterator[Resources]:
    """Open what every request shares; close it in reverse, also when start-up fails."""
    metrics = Metrics()
    timing = DatabaseTiming(metrics, settings.log.slow_statement)
    in_flight: InFlight = {}
    async with (
        open_logs(settings.log) as logs,
        open_database(settings.database, timing) as sessions,
        open_redis(settings.redis, metrics) as redis,
        open_monitor(metrics, logs, sessions, in_flight),
    ):
        yield Resources(
            settings=settings,
            metrics=metrics,
            logs=logs,
            sessions=sessions,
            redis=redis,
            in_flight=in_flight,
        )
