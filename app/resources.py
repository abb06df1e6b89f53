"""What one worker owns and every request shares."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

import httpx2
from redis.asyncio import Redis

from app.access_tokens import AccessTokens
from app.cache import Cache, open_cache
from app.cache_epoch import Epoch
from app.database import Sessions, open_database
from app.database_timing import DatabaseTiming
from app.http_client import open_http_client
from app.idempotency import Safe
from app.job_queue import open_job_queue
from app.logs import Output, open_logs
from app.metrics import Metrics
from app.monitor import open_monitor
from app.outbox import Outbox, open_outbox
from app.passwords import Passwords, open_passwords
from app.process_pool import ProcessPool, open_process_pool
from app.rate_limit import RateLimiter
from app.redis import open_redis
from app.request_context import InFlight
from app.schema_revision import SchemaState
from app.settings import Settings
from app.shared_connection import open_shared_connection
from app.single_flight import SingleFlight
from app.storage import Storage, make_storage
from app.uploads import Uploads, open_uploads
from app.workload import Workload


class Resources(TypedDict):
    settings: Settings
    metrics: Metrics
    logs: Output
    sessions: Sessions
    redis: Redis
    cache: Cache
    limiter: RateLimiter
    workload: Workload
    in_flight: InFlight
    probes: SingleFlight
    schema: SchemaState
    passwords: Passwords
    access_tokens: AccessTokens
    kept_answers: Safe
    outbox: Outbox
    http: httpx2.AsyncClient
    storage: Storage | None
    uploads: Uploads
    processes: ProcessPool


@asynccontextmanager
async def open_resources(settings: Settings) -> AsyncIterator[Resources]:
    """Open what every request shares; close it in reverse, also when start-up fails."""
    metrics = Metrics()
    timing = DatabaseTiming(metrics, settings.log.slow_statement, settings.database.max_waiting)
    in_flight: InFlight = {}
    workload = Workload(settings.request, metrics)
    async with (
        open_logs(settings.log) as logs,
        open_database(settings.database, timing) as sessions,
        open_redis(settings.redis, metrics) as redis,
        open_shared_connection(settings.redis, metrics) as shared,
        open_cache(settings, shared, redis, Epoch(sessions), metrics) as cache,
        open_passwords(settings.passwords) as passwords,
        open_job_queue(settings) as queue,
        open_outbox(queue) as outbox,
        open_http_client(settings.http, metrics) as http,
        open_uploads(settings.files.upload_folder) as uploads,
        open_process_pool(settings.processes, metrics) as processes,
        open_monitor(metrics, logs, sessions, in_flight, workload),
    ):
        yield Resources(
            settings=settings,
            metrics=metrics,
            logs=logs,
            sessions=sessions,
            redis=redis,
            cache=cache,
            limiter=RateLimiter(shared, settings, metrics),
            workload=workload,
            in_flight=in_flight,
            probes=SingleFlight(),
            schema=SchemaState(),
            passwords=passwords,
            access_tokens=AccessTokens(settings.tokens),
            kept_answers=Safe(settings),
            outbox=outbox,
            http=http,
            storage=make_storage(settings),
            uploads=uploads,
            processes=processes,
        )
