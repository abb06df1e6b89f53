"""Traces by OpenTelemetry, switched on by its standard variables; otherwise nothing is paid."""

import os

from fastapi.telemetry import TelemetryConfig


def is_traced() -> bool:
    """Whether `OTEL_*` says where traces go (https://opentelemetry.io/docs/specs/otel/protocol/exporter/)."""
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return (
        any(os.environ.get(name) for name in endpoints)
        and os.environ.get("OTEL_TRACES_EXPORTER", "otlp").lower() != "none"
        and os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true"
    )


def telemetry() -> TelemetryConfig:
    """FastAPI's own spans, exported from each worker by threads that start after the fork."""
    traced = is_traced()
    return {"tracing": traced, "auto_configure": traced, "metrics": False, "logs": False}
