from fastapi import APIRouter, Request
from redis.exceptions import RedisError
from sqlalchemy import text

from app.dependencies import ReadSession, RedisClient
from app.errors import Unavailable
from app.routing import Route, problems
from app.schemas.health import Health, Readiness

router = APIRouter(prefix="/health", tags=["health"], route_class=Route)


@router.get("", responses=problems())
async def get_health() -> Health:
    """This process answers; it asks nobody else."""
    return Health(status="ok")


@router.get("/ready", responses=problems())
async def get_readiness(request: Request, session: ReadSession, redis: RedisClient) -> Readiness:
    """Send requests here: the database answers and this worker is not about to stop.

    Redis is only reported: without it the service is slower, not broken.
    """
    if request.scope["state"].get("draining"):
        raise Unavailable("This worker is about to stop")
    await session.execute(text("SELECT 1"))
    try:
        await redis.ping()
    except RedisError:
        return Readiness(status="ready", database="ok", redis="unavailable")
    return Readiness(status="ready", database="ok", redis="ok")
