from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import text

from app.database import Sessions
from app.errors import Unavailable
from app.routing import ProbeRoute, problems
from app.schema_revision import SchemaState
from app.schemas.health import Health, Readiness
from app.single_flight import SingleFlight

router = APIRouter(prefix="/health", tags=["health"], route_class=ProbeRoute)


@router.get("", responses=problems())
async def get_health() -> Health:
    """This process answers; it asks nobody else."""
    return Health(status="ok")


@router.get("/ready", responses=problems())
async def get_readiness(request: Request) -> Readiness:
    """Send requests here: the database responds, its schema is not older than this code, and this
    worker is not about to stop.

    Redis is only reported: without it the service is slower, not broken.
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
    async with sessions.read() as session:
        if schema.current:
            await session.execute(text("SELECT 1"))
        elif (lack := await schema.lack(session)) is not None:
            raise Unavailable(lack)
    try:
        await redis.ping()
    except RedisError:
        return Readiness(status="ready", database="ok", redis="unavailable")
    return Readiness(status="ready", database="ok", redis="ok")
