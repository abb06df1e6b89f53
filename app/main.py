"""The whole service on one screen."""

from fastapi import FastAPI

from app.about import SUMMARY, TAGS, TITLE, VERSION
from app.authentication import find_key
from app.routers import (
    account_pages,
    administration,
    audit,
    keys,
    mailed,
    sessions,
    tokens,
    users,
)
from app.sample import routers as sample  # sample
from app.settings import Settings, read_service_settings
from chassis.files import routes as files
from chassis.http.application import Application, include
from chassis.http.openapi import document_api
from chassis.resources import open_resources
from chassis.routes import docs, front, health, metrics
from chassis.telemetry.tracing import telemetry


def create_app(settings: Settings | None = None) -> FastAPI:
    settings = settings or read_service_settings()
    app = Application(
        settings,
        find_key=find_key,
        title=TITLE,
        version=VERSION,
        summary=SUMMARY,
        openapi_tags=[{"name": name, "description": text} for name, text in TAGS.items()],
        lifespan=lambda app: open_resources(settings),
        telemetry=telemetry(),
        generate_unique_id_function=lambda route: route.name,
        redirect_slashes=False,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    # Of the routes that match a path the first responds. The name of a handler is its operation id,
    # so it must be unique.
    modules = [
        health,
        files,
        account_pages,
        users,
        mailed,
        tokens,
        sessions,
        keys,
        administration,
        audit,
    ]
    modules = [*sample.MODULES, *modules]  # sample
    for module in [*modules, front, metrics]:
        include(app, module.router)
    if settings.web.docs:
        include(app, docs.router)
        app.mount("/docs/assets", docs.assets)
    document_api(app)
    return app
