"""This service without a part that no setting turns off, for what that part costs."""

from typing import Any

from fastapi import FastAPI

from app.main import create_app
from chassis.browsers.response_headers import ResponseHeaders
from chassis.http.metrics import HttpMetrics


def metrics() -> FastAPI:
    def observe_nothing(self: HttpMetrics, *of_request: Any) -> None:
        pass

    HttpMetrics.observe_request = observe_nothing  # type: ignore[assignment, method-assign]
    return create_app()


def browser_headers() -> FastAPI:
    def none_of(self: ResponseHeaders, *of_request: Any) -> tuple[()]:
        return ()

    ResponseHeaders.of = none_of  # type: ignore[assignment, method-assign]
    return create_app()
