"""Traces by OpenTelemetry; its SDK is loaded only if its standard variables ask for traces."""

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

_NOTHING = nullcontext()

log = logging.getLogger("app.tracing")


def is_traced() -> bool:
    return _is_wanted() and find_spec("opentelemetry.sdk") is not None


def _is_wanted() -> bool:
    """https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/"""
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return (
        any(os.environ.get(name) for name in endpoints)
        and os.environ.get("OTEL_TRACES_EXPORTER", "otlp").lower() != "none"
        and os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true"
    )


def telemetry() -> TelemetryConfig:
    """Configures FastAPI's own spans; each worker exports them by a thread of its own."""
    traced = is_traced()
    if _is_wanted() and not traced:
        log.warning("OTEL_* asks for traces, which need requirements-tracing.lock")
    return {"tracing": traced, "auto_configure": traced, "metrics": False, "logs": False}


def current_trace_id() -> str | None:
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None


class Tracing:
    """Client spans of a request: statements, commands, calls to other services."""

    def __init__(self) -> None:
        self.on = is_traced()
        self._tracer = trace.get_tracer("app") if self.on else None

    def span(self, system: str, operation: str, text: str = "") -> AbstractContextManager[None]:
        """https://opentelemetry.io/docs/specs/semconv/database/database-spans/"""
        if self._tracer is None:
            return _NOTHING
        attributes = {"db.system.name": system, "db.operation.name": operation}
        if text:
            attributes["db.query.text"] = text
        return _span(self._tracer, operation, attributes)

    def http(self, method: str, server: str) -> AbstractContextManager[Any]:
        """Current while it lasts, so that spans of the server become its children.

        https://opentelemetry.io/docs/specs/semconv/http/http-spans/
        """
        if self._tracer is None:
            return _NOTHING
        attributes = {"http.request.method": method, "server.address": server}
        return self._tracer.start_as_current_span(
            method, kind=SpanKind.CLIENT, attributes=attributes, record_exception=False
        )


@contextmanager
def _span(tracer: trace.Tracer, name: str, attributes: dict[str, str]) -> Iterator[None]:
    span = tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)
    try:
        yield
    except BaseException as error:
        # Without its text, which may contain values of the statement.
        span.set_attribute("error.type", type(error).__name__)
        span.set_status(StatusCode.ERROR)
        raise
    finally:
        span.end()
