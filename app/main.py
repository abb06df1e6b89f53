"""The whole service on one screen."""

from fastapi import FastAPI

from app.errors import add_error_handlers
from app.middleware.request import RequestMiddleware
from app.openapi import document_problems
from app.resources import open_resources
from app.routers import (
    authors,
    books,
    covers,
    docs,
    files,
    health,
    metrics,
    offers,
    rankings,
    reviews,
    tokens,
    users,
)
from app.routing import include
from app.settings import Settings, read_service_settings
from app.tracing import telemetry
from app.version import VERSION


def create_app(settings: Settings | None = None) -> FastAPI:
    settings = settings or read_service_settings()
    app = FastAPI(
        title="Books",
        version=VERSION,
        summary="A catalogue of books, their authors and how readers rate them.",
        lifespan=lambda app: open_resources(settings),
        telemetry=telemetry(),
        generate_unique_id_function=lambda route: route.name,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    app.add_middleware(RequestMiddleware, settings=settings)
    add_error_handlers(app)
    # Routes are tried in this order: what is asked most stands first.
    for module in (
        *(books, authors, rankings, reviews, covers, files, offers, users, tokens),
        *(health, metrics, docs),
    ):
        include(app, module.router)
    app.mount("/docs/assets", docs.assets)
    document_problems(app)
    return app
