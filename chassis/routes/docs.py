"""The documentation page, with local assets: it works offline and under any path prefix."""

import asyncio
import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path

import orjson
from fastapi import APIRouter, Request, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from chassis.http.routing import Route
from chassis.limits.route_limits import RateLimitRule, start_check

READ = RateLimitRule("reads")


class PageRoute(Route):
    """Ignores undeclared query parameters, which links to a page may have."""

    def checked(self, scope: Scope, receive: Receive) -> Receive:
        return receive


router = APIRouter(include_in_schema=False, route_class=PageRoute)


class LimitedFiles(StaticFiles):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await start_check(scope, READ)()
        await super().__call__(scope, receive, send)


# Swagger UI, as this package contains it.
assets = LimitedFiles(packages=[("fastapi_swagger", "resources")])
templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
)


@cache
def docs_page(title: str) -> bytes:
    return templates.get_template("docs.html").render(title=title).encode()


SCRIPTS = re.findall(rb"<script>(.*?)</script>", docs_page(""), re.DOTALL)
HASHES = [f"'sha256-{b64encode(sha256(script).digest()).decode()}'" for script in SCRIPTS]
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
# Swagger UI uses inline styles, and `data:` URLs for icons.
OWN = (
    f"{NOTHING}; script-src 'self' {' '.join(HASHES)}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'"
)


@router.get("/docs")
async def get_docs(request: Request) -> HTMLResponse:
    page = docs_page(request.app.title)
    return HTMLResponse(page, headers={"Content-Security-Policy": OWN})


@router.get("/openapi.json")
async def get_openapi(request: Request) -> Response:
    # In a thread: to build it, which the app does once, would block the event loop for 0.1 s.
    document = await asyncio.to_thread(request.app.openapi)
    if prefix := request.scope["root_path"].rstrip("/"):
        document = {**document, "servers": [{"url": prefix}]}
    return Response(orjson.dumps(document), media_type="application/json")
