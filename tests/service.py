"""The service with a resource that the tests define themselves, as processes start it, too."""

from fastapi import FastAPI

from app import main
from app.settings import Settings
from chassis.http.application import include
from tests.purchases import payers, router


def create_app(settings: Settings | None = None) -> FastAPI:
    app = main.create_app(settings)
    for module in (router, payers):
        include(app, module.router)
    return app
