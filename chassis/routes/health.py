import asyncio
import logging
from collections.abc import Awaitable
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from redis.exceptions import OutOfMemoryError, RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from chassis.database.engines import reason_of
from chassis.database.replica import worst_state
from chassis.errors import Overloaded, Unavailable
from chassis.http.openapi import problems
from chassis.http.routing import ProbeRoute
from chassis.resources import Resources
from chassis.routes.health_schema import Health, Readiness, RedisState

PRIMARY_TIMEOUT = 2  # s; shorter than the usual timeout of a probe
PROBE_TTL = 1000  # ms

log = logging.getLogger("app.health")

router = APIRouter(prefix="/health", tags=["health"], route_class=ProbeRoute)


@router.get("", responses=problems())
async def get_health() -> Health:
    """Check that this process responds.

    It asks no other server.
    """
    return Health(status="ok")


@router.get("/ready", responses=problems(), response_model_exclude_none=True)
async def get_readiness(request: Request) -> Readiness:
    """Check whether to send requests here.

    The primary database responds, its schema is not older than this code, and this worker is not
    about to stop.

    The states of Redis, the queue and the replica are only reported: without them the service is
    slower, but works.
    """
    resources: Resources = request.scope["state"]
    if resources.get("draining"):
        raise Unavailable("This worker is about to stop")
    # Concurrent probes share one database connection.
    return await resources["probes"].run("ready", partial(_check_servers, resources))


async def _check_servers(resources: Resources) -> Readiness:
    sessions, schema = resources["sessions"], resources["schema"]
    settings = resources["settings"]
    replica = worst_state([replica for replica, _ in sessions.replicas])
    lack = None
    try:
        async with asyncio.timeout(PRIMARY_TIMEOUT), sessions.current() as session:
            if schema.current:
                await session.execute(text("SELECT 1"))
            else:
                lack = await schema.shortfall(session)
    except (SQLAlchemyError, OSError, Overloaded) as error:
        log.warning("Not ready: the primary database is unavailable: %s", reason_of(error))
        also = "" if replica is None else f"; a replica is {replica}"
        raise Unavailable(f"The primary database is unavailable{also}") from error
    if lack is not None:
        raise Unavailable(lack)
    name = f"{settings.cache.namespace}:ready"
    cache_state = await _state_of(resources["redis"].set(name, b"", px=PROBE_TTL))
    queue_state = None
    if settings.jobs.url is not None:
        queue = resources["limiter"].shared
        queue_state = await _state_of(queue.call("SET", name, b"", "PX", PROBE_TTL))
    return Readiness(
        status="ready", database="ok", replica=replica, redis=cache_state, queue=queue_state
    )


async def _state_of(write: Awaitable[Any]) -> RedisState:
    """By a write: a server that is full and evicts nothing still replies to PING."""
    try:
        await write
    except OutOfMemoryError:
        return "full"
    except (RedisError, OSError):
        return "unavailable"
    return "ok"
