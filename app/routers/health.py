import asyncio
import logging
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.database import Sessions
from app.errors import Overloaded, Unavailable
from app.routing import ProbeRoute, problems
from app.schema_revision import SchemaState
from app.schemas.health import Health, Readiness
from app.single_flight import SingleFlight

PRIMARY_TIMEOUT = 2  # s; whoever asks has a time limit, too

log = logging.getLogger("app.health")

router = APIRouter(prefix="/health", tags=["health"], route_class=ProbeRoute)


@router.get("", responses=problems())
async def get_health() -> Health:
    """This process answers; it asks nobody else."""
    return Health(status="ok")


@router.get("/ready", responses=problems(), response_model_exclude_none=True)
async def get_readiness(request: Request) -> Readiness:
    """Send requests here: the primary database responds, its schema is not older than this code,
    and this worker is not about to stop.

    Redis and the replica are only reported: without them the service is slower, not broken.
    """
    state = request.scope["state"]
    if state.get("draining"):
        raise Unavailable("This worker is about to stop")
    # However often it is asked, it takes one connection.
    probes: SingleFlight = state["probes"]
    return await probes.run("ready", partial(_ask_servers, state))


async def _ask_servers(state: dict[str, Any]) -> Readiness:
    sessions: Sessions = state["sessions"]
    redis: Redis = state["redis"]
    schema: SchemaState = state["schema"]
    replica = sessions.replica and sessions.replica.state
    lack = None
    try:
        async with asyncio.timeout(PRIMARY_TIMEOUT), sessions.current() as session:
            if schema.current:
                await session.execute(text("SELECT 1"))
            else:
                lack = await schema.lack(session)
    except (SQLAlchemyError, OSError, Overloaded) as error:
        reason = str(getattr(error, "orig", error)) or "it does not respond"
        log.warning("Not ready, as the primary database is unavailable: %s", reason)
        also = "" if replica is None else f"; the replica is {replica}"
        raise Unavailable(f"The primary database is unavailable{also}") from error
    if lack is not None:
        raise Unavailable(lack)
    try:
        await redis.ping()
    except RedisError:
        return Readiness(status="ready", database="ok", replica=replica, redis="unavailable")
    return Readiness(status="ready", database="ok", replica=replica, redis="ok")
