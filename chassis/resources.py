"""The resources of one worker, which all its requests share."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import NotRequired

import httpx2 as httpx
from redis.asyncio import Redis
from typing_extensions import ReadOnly

from chassis.auth.access_tokens import AccessTokens
from chassis.auth.api_keys import ApiKeys
from chassis.auth.metrics import SecurityMetrics
from chassis.auth.passwords import Passwords
from chassis.auth.security_events import SecurityEvents
from chassis.auth.totp import TotpSecrets
from chassis.browsers.response_headers import ResponseHeaders
from chassis.cache.cache import open_cache
from chassis.cache.epoch import Epoch
from chassis.cache.metrics import CacheMetrics
from chassis.database.engines import open_database
from chassis.database.metrics import DatabaseMetrics
from chassis.database.timing import DatabaseTiming
from chassis.files.storage import Storage, make_storage
from chassis.files.uploads import Uploads, open_uploads
from chassis.http.metrics import HttpMetrics
from chassis.http.request_state import HttpState
from chassis.idempotency.requests import IdempotencyStore
from chassis.jobs.metrics import JobMetrics
from chassis.jobs.outbox import Outbox
from chassis.limits.load_shedding import AdmissionController
from chassis.limits.metrics import LimitMetrics
from chassis.limits.rate_limit import RateLimiter
from chassis.mail.metrics import MailMetrics
from chassis.migrations.revision import SchemaState
from chassis.processes.metrics import ProcessMetrics
from chassis.processes.pool import ProcessPool
from chassis.redis.client import open_redis
from chassis.redis.metrics import RedisMetrics
from chassis.redis.server import RedisServer
from chassis.redis.shared_connection import open_shared_connection
from chassis.request_context import InFlight
from chassis.server.metrics import CollectorMetrics, WorkerMetrics
from chassis.server.monitor import Monitor, open_monitor
from chassis.service_settings import ChassisSettings
from chassis.tasks.background import closing
from chassis.tasks.single_flight import SingleFlight
from chassis.telemetry.error_reports import open_error_reports
from chassis.telemetry.logs import open_logs
from chassis.telemetry.metrics import LogMetrics, Metrics, ShedMetrics
from chassis.upstream.client import open_http_client
from chassis.upstream.metrics import UpstreamMetrics

PARTS = (
    *(CacheMetrics, CollectorMetrics, DatabaseMetrics, HttpMetrics, JobMetrics, LimitMetrics),
    *(LogMetrics, MailMetrics, ProcessMetrics, RedisMetrics, SecurityMetrics, ShedMetrics),
    *(UpstreamMetrics, WorkerMetrics),
)


def declare_metrics(version: str = "") -> Metrics:
    """Of all parts, so that families are exported before their first event."""
    metrics = Metrics(version)
    for part in PARTS:
        metrics.of(part)
    return metrics


class Resources(HttpState):
    """`scope["state"]` of every request: see chassis/http/request_state.py."""

    settings: ReadOnly[ChassisSettings]
    redis: Redis
    probes: SingleFlight
    schema: SchemaState
    passwords: Passwords
    totp: TotpSecrets
    security: SecurityEvents
    outbox: Outbox
    http: httpx.AsyncClient
    storage: Storage | None
    uploads: Uploads
    processes: ProcessPool
    draining: NotRequired[bool]  # the worker is about to stop


@asynccontextmanager
async def open_resources(settings: ChassisSettings) -> AsyncIterator[Resources]:
    """Open the resources; close them in reverse order, also if opening one fails."""
    metrics = declare_metrics(settings.version)
    timing = DatabaseTiming(metrics, settings.log.slow_statement, settings.database.max_waiting)
    in_flight: InFlight = {}
    namespace = settings.cache.namespace
    redis_server = RedisServer(settings.redis, namespace)
    user_agent = f"{settings.service}/{settings.version}"
    has_replica = settings.database.read_url is not None
    sharing = settings.web.concurrency * settings.web.replicas
    admission = AdmissionController(settings.request, metrics)
    async with (
        open_logs(settings.log) as logs,
        open_error_reports(settings.sentry, settings.environment, user_agent) as error_reports,
        open_database(settings.database, timing) as sessions,
        open_redis(redis_server, metrics) as redis,
        open_shared_connection(redis_server, metrics) as shared,
        (
            nullcontext(shared)
            if settings.jobs.url is None
            else open_shared_connection(RedisServer(settings.queue, namespace), metrics, "queue")
        ) as queue_connection,
        open_cache(
            settings.cache,
            settings.version,
            shared,
            redis,
            Epoch(sessions),
            metrics,
            has_replica,
        ) as cache,
        closing(Passwords(settings.passwords)) as passwords,
        open_http_client(settings.http, user_agent, metrics) as http,
        open_uploads(settings.files.upload_folder) as uploads,
        closing(ProcessPool(settings.processes, metrics)) as processes,
        open_monitor(Monitor(metrics, logs, sessions, in_flight, admission)),
    ):
        yield Resources(
            settings=settings,
            metrics=metrics,
            logs=logs,
            error_reports=error_reports,
            response_headers=ResponseHeaders(settings.cors, settings.web.hsts),
            sessions=sessions,
            redis=redis,
            cache=cache,
            limiter=RateLimiter(queue_connection, namespace, settings.limits, sharing, metrics),
            admission=admission,
            in_flight=in_flight,
            probes=SingleFlight(),
            schema=SchemaState(),
            passwords=passwords,
            totp=TotpSecrets(settings.title, settings.tokens.keys),
            security=SecurityEvents(metrics),
            access_tokens=AccessTokens(settings.tokens),
            api_keys=ApiKeys(settings.keys),
            idempotency=IdempotencyStore(settings.request.replay_ttl, settings.tokens.keys),
            outbox=Outbox(queue_connection, namespace),
            http=http,
            storage=make_storage(settings.files, settings.tokens.keys),
            uploads=uploads,
            processes=processes,
        )
