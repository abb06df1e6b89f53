from functools import partial

from fastapi import APIRouter, Request
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import text

from app.database import Sessions
from app.errors import Unavailable
from app.routing import ProbeRoute, problems
from app.schemas.health import Health, Readiness
from app.single_flight import SingleFlight

router = APIRouter(prefix="/health", tags=["health"], route_class=ProbeRoute)


@router.get("", responses=problems())
async def get_health() -> Health:
    """This process answers; it asks nobody else."""
    return Health(status="ok")


@router.get("/ready", responses=problems())
async def get_readiness(request: Request) -> Readiness:
    """Send requests here: the database answers and this worker is not about to stop.

    Redis is only reported: without it the service is slower, not broken.
    """
    state = request.scope["state"]
    if state.get("draining"):
        raise Unavailable("This worker is about to stop")
    # However often it is asked, it takes one connection.
    probes: SingleFlight = state["probes"]
    return await probes.run("ready", partial(_ask_servers, state["sessions"], state["redis"]))


async def _ask_servers(sessions: Sessions, redis: Redis) -> Readiness:
    async with sessions.read() as session:
        await session.execute(text("SELECT 1"))
    try:
        await redis.ping()
    except RedisError:
        return Readiness(status="ready", database="ok", redis="unavailable")
    return Readiness(status="ready", database="ok", redis="ok")
