import asyncio

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from app.dependencies import Scraper
from app.routing import ProbeRoute

router = APIRouter(prefix="/metrics", route_class=ProbeRoute, include_in_schema=False)


@router.get("", dependencies=[Scraper])
async def get_metrics(request: Request) -> Response:
    """The sum over all workers, whichever of them answers."""
    text = await asyncio.to_thread(request.state.metrics.render)
    return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)
