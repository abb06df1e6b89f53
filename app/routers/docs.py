"""The documentation page, with assets of our own: it works offline and under any prefix."""

import re
from base64 import b64encode
from hashlib import sha256

from fastapi import APIRouter
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from app.routing import ProbeRoute


class PageRoute(ProbeRoute):
    """A page for browsers, whatever a link to it adds."""

    def check_names(self, scope: Scope) -> None:
        pass


router = APIRouter(include_in_schema=False, route_class=PageRoute)

# Swagger UI as this package ships it; we only serve the files.
assets = StaticFiles(packages=[("fastapi_swagger", "resources")])
PAGE = bytes(
    get_swagger_ui_html(
        title="Books",
        openapi_url="openapi.json",
        swagger_js_url="docs/assets/swagger-ui-bundle.js",
        swagger_css_url="docs/assets/swagger-ui.css",
        swagger_favicon_url="docs/assets/favicon-32x32.png",
    ).body
)
SCRIPTS = re.findall(rb"<script>(.*?)</script>", PAGE, re.DOTALL)
HASHES = [f"'sha256-{b64encode(sha256(script).digest()).decode()}'" for script in SCRIPTS]
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
# Swagger UI sets styles of elements, and has its icons in `data:` URLs.
OWN = (
    f"{NOTHING}; script-src 'self' {' '.join(HASHES)}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'"
)


@router.get("/")
async def get_root() -> RedirectResponse:
    return RedirectResponse("docs", headers={"Content-Security-Policy": NOTHING})


@router.get("/docs")
async def get_docs() -> HTMLResponse:
    return HTMLResponse(PAGE, headers={"Content-Security-Policy": OWN})
