import asyncio
import logging
from functools import partial

from fastapi import APIRouter, Request
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.database import Sessions
from app.errors import Overloaded, Unavailable
from app.routing import ProbeRoute, problems
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
    """Send requests here: the primary database responds and this worker is not about to stop.

    Redis and the replica are only reported: without them the service is slower, not broken.
    """
    state = request.scope["state"]
    if state.get("draining"):
        raise Unavailable("This worker is about to stop")
    # However often it is asked, it takes one connection.
    probes: SingleFlight = state["probes"]
    return await probes.run("ready", partial(_ask_servers, state["sessions"], state["redis"]))


async def _ask_servers(sessions: Sessions, redis: Redis) -> Readiness:
    replica = sessions.replica and sessions.replica.state
    try:
        async with asyncio.timeout(PRIMARY_TIMEOUT), sessions.current() as session:
            await session.execute(text("SELECT 1"))
    except (SQLAlchemyError, OSError, Overloaded) as error:
        reason = str(getattr(error, "orig", error)) or "it does not respond"
        log.warning("Not ready, as the primary database is unavailable: %s", reason)
        also = "" if replica is None else f"; the replica is {replica}"
        raise Unavailable(f"The primary database is unavailable{also}") from error
    try:
        await redis.ping()
    except RedisError:
        return Readiness(status="ready", database="ok", replica=replica, redis="unavailable")
    return Readiness(status="ready", database="ok", replica=replica, redis="ok")
