"""Responses of the type `application/problem+json` (RFC 9457)."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from http.client import responses as reasons
from typing import Any

import orjson
from fastapi import Response

from chassis.errors import RETRY_AFTER
from chassis.problems.validation_errors import Faults, cut
from chassis.request_context import RequestContext, current_request

MAX_DETAIL = 600  # characters
MAX_PATH = 500
OUTCOME_UNKNOWN = "urn:problem-type:outcome-unknown"


def problem(
    status: int,
    detail: str,
    scope: Mapping[str, Any],
    headers: Mapping[str, str] | None = None,
    **extra: Any,
) -> Response:
    """A problem response; without `extra` it has about 20 kB at most."""
    request = current_request.get()
    if status >= 500 and request is not None and request.commit != "none":
        # The change was made, or may have been: the client must not simply try again.
        headers = {name: value for name, value in (headers or {}).items() if name != "Retry-After"}
        if request.is_repeatable:
            headers |= RETRY_AFTER
        detail, more = _outcome(request, detail)
        extra |= more
    request_id = None if request is None else request.id
    body = problem_body(status, detail, scope["path"], request_id, **extra)
    # Otherwise a cache may store a 404 or a 405 by heuristics (RFC 9111, 4.2.2).
    headers = {"Cache-Control": "no-store"} | dict(headers or {})
    return Response(body, status, headers, "application/problem+json")


def _outcome(request: RequestContext, detail: str) -> tuple[str, dict[str, str]]:
    """The detail, and further members, of an error after a COMMIT was sent."""
    if request.commit == "done":
        return f"{detail}; the change itself was made", {}
    if request.has_idempotency_key:
        advice = "repeat the request with the same Idempotency-Key: it takes effect once"
    elif request.is_repeatable:
        advice = "repeat the request: it is idempotent"
    else:
        advice = "check before you repeat the request (with an Idempotency-Key it could be repeated"
        advice += " as it is)"
    detail = f"The commit got no reply, so it is not known whether the change was made: {advice}"
    return detail, {"type": OUTCOME_UNKNOWN, "title": "Outcome unknown"}


def problem_body(
    status: int, detail: str, path: str, request_id: str | None, **extra: Any
) -> bytes:
    return orjson.dumps(
        {
            "type": "about:blank",
            "title": reasons.get(status, "Error"),
            "status": status,
            "detail": cut(detail, MAX_DETAIL),
            "instance": cut(path, MAX_PATH),
            "request_id": request_id,
            **extra,
        },
        default=str,
    )


def invalid(errors: Sequence[Mapping[str, Any]], scope: Mapping[str, Any]) -> Response:
    faults = Faults(errors)
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    return problem(status, str(faults), scope, errors=faults.shown)
