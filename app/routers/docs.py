"""The documentation page, with assets of our own: it works offline and under any prefix."""

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


@router.get("/")
async def get_root() -> RedirectResponse:
    return RedirectResponse("docs")


@router.get("/docs")
async def get_docs() -> HTMLResponse:
    return get_swagger_ui_html(
        title="Books",
        openapi_url="openapi.json",
        swagger_js_url="docs/assets/swagger-ui-bundle.js",
        swagger_css_url="docs/assets/swagger-ui.css",
        swagger_favicon_url="docs/assets/favicon-32x32.png",
    )
