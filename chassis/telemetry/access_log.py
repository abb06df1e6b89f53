"""The access log, with the time that slow requests spent on servers."""

import logging
import random
from typing import Any, TypedDict

from chassis.request_context import RequestContext
from chassis.telemetry.log_lines import SLOW
from chassis.telemetry.logs import Output
from chassis.telemetry.settings import LogSettings


class LogState(TypedDict):
    """See chassis/http/request_state.py."""

    logs: Output


class AccessLog:
    """Logs every error and slow request, and a sample of the others."""

    def __init__(self, settings: LogSettings) -> None:
        self.slow = settings.slow_request
        self.sample = settings.access_sample

    def write(self, request: RequestContext, status: int, elapsed: float) -> None:
        """`elapsed`: s."""
        is_routine = status < 400 and elapsed < self.slow
        if is_routine and self.sample < 1 and random.random() >= self.sample:  # noqa: S311
            return
        scope = request.scope
        fields: dict[str, Any] = {
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "duration_ms": round(elapsed * 1000, 2),
            "client": scope["client"] and scope["client"][0],
            "request_id": request.id,
        }
        if request.trace_id is not None:
            fields["trace_id"] = request.trace_id
        message = f"{scope['method']} {scope['path']} {status}"
        level = logging.INFO if status < 500 else logging.WARNING
        if elapsed >= self.slow:
            level = logging.WARNING
            message += SLOW
            fields |= _split(request, elapsed)
        state: LogState = scope["state"]
        state["logs"].write(level, message, fields)


def _split(request: RequestContext, elapsed: float) -> dict[str, Any]:
    fields: dict[str, Any] = {"app_ms": round(request.own_seconds(elapsed) * 1000, 2)}
    for kind, spent in request.spent.items():
        fields[f"{kind}_ms"] = round(spent.seconds * 1000, 2)
        fields[f"{kind}_count"] = spent.count
    if request.slowest_statement is not None:
        fields["slowest_statement"] = request.slowest_statement
        fields["slowest_statement_ms"] = round(request.slowest_seconds * 1000, 2)
    return fields
