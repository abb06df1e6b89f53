import asyncio
import secrets

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from chassis.auth.credentials import authorization
from chassis.errors import NotFound, Unauthorized
from chassis.http.routing import ProbeRoute
from chassis.resources import Resources


async def require_scraper(request: Request) -> None:
    """Requires the metrics port and token that are set; if none is, no proxy and no production."""
    resources: Resources = request.scope["state"]
    settings = resources["settings"]
    port, token = settings.metrics.port, settings.metrics.token
    if port is not None and request.scope["server"][1] != port:
        raise NotFound("Not on this port")
    if token is not None:
        expected = f"Bearer {token.get_secret_value()}"
        given = authorization(request.scope) or ""
        if not secrets.compare_digest(given.encode(), expected.encode()):
            raise Unauthorized("Metrics require the token of METRICS_TOKEN")
    elif port is None and (settings.environment == "production" or came_by_proxy(request)):
        raise NotFound("Metrics are not served here: set METRICS_PORT or METRICS_TOKEN")


def came_by_proxy(request: Request) -> bool:
    names = {name.decode("latin-1") for name, _ in request.scope["headers"]}
    return any(
        name in ("forwarded", "via", "x-real-ip") or name.startswith("x-forwarded-")
        for name in names
    )


router = APIRouter(prefix="/metrics", route_class=ProbeRoute, include_in_schema=False)


@router.get("", dependencies=[Depends(require_scraper)])
async def get_metrics(request: Request) -> Response:
    resources: Resources = request.scope["state"]
    text = await asyncio.to_thread(resources["metrics"].render)
    return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)
