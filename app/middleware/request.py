"""What happens around every request, in one wrapper around `send`."""

import asyncio
import logging
import random
import re
import time
from http import HTTPStatus
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.addresses import unmapped
from app.deadline import Deadline
from app.errors import RETRY_AFTER, problem, problem_body
from app.log_lines import SLOW
from app.request_context import RequestContext, current_request, read_primary
from app.settings import Settings
from app.tracing import current_trace_id, is_traced
from app.workload import TOO_MUCH

_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# W3C Trace Context, 3.2: version, trace id, parent id, flags; the ids are not all zeros.
_TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})"
)

# No path of ours has them, and `$` of a regular expression also matches before a last line feed.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
NO_SNIFFING = (b"x-content-type-options", b"nosniff")

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

log = logging.getLogger("app.request")


class RequestMiddleware:
    """Ids, time limit, timing, metrics, an answer to what nobody caught, and the access line."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.timeout = settings.request.timeout
        self.slow = settings.log.slow_request
        self.sample = settings.log.access_sample
        self.traced = is_traced()
        self.metrics_port = settings.metrics.port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        start = time.perf_counter()
        state = scope["state"]
        if state["workload"].refuses(scope, len(state["in_flight"])):
            headers, body = refusal(scope)
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        request = _context(scope)
        request.deadline = start + self.timeout
        if self.traced:
            request.trace_id = current_trace_id()
        state["request_id"] = request.id
        if client := scope["client"]:  # as a proxy may have written it
            scope["client"] = (unmapped(client[0]), client[1])
        if scope["method"] == "HEAD":
            # RFC 9110, 14.2: a range is for GET alone.
            scope["headers"] = [field for field in scope["headers"] if field[0] != b"range"]
        current_request.set(request)
        # An account sees what it has written, and a write depends on nothing that is old.
        read_primary.set(request.has_credentials or scope["method"] not in SAFE_METHODS)
        task = asyncio.current_task()
        state["in_flight"][task] = request
        status = size = 0
        ended: float | None = None

        async def send_with_headers(message: Message) -> None:
            nonlocal status, size, ended
            if message["type"] == "http.response.start":
                status = message["status"]
                elapsed = time.perf_counter() - start
                message["headers"] = [
                    *message["headers"],  # of an answer that may be sent again
                    *request.answer_headers,
                    (b"x-request-id", request.id.encode()),
                    (b"x-process-time", b"%.6f" % elapsed),
                    (b"server-timing", _server_timing(request, elapsed)),
                    NO_SNIFFING,
                ]
            elif message["type"] == "http.response.body":
                size += len(message.get("body", b""))
                if not message.get("more_body"):
                    ended = time.perf_counter()  # what follows are background tasks
            await send(message)

        try:
            with Deadline(self.timeout, task) as deadline:
                app = _not_found(scope) if self._is_hidden(scope) else self.app
                await app(scope, receive, send_with_headers)
        except asyncio.CancelledError:
            if not status:  # the worker stops, and waited for this request as long as it may
                await _stopping(scope)(scope, receive, send_with_headers)
            raise
        except Exception as error:
            if status:
                # Half an answer is out, and all that is left is to cut the connection; or the
                # whole, and a background task has failed. Whoever called us logs it.
                status = status if ended else 500
                raise
            late = isinstance(error, TimeoutError) and deadline.expired
            if not late:
                log.exception("Unhandled error")
            response = _too_late(self.timeout, scope) if late else _broken(scope)
            await response(scope, receive, send_with_headers)
        finally:
            del state["in_flight"][task]
            elapsed = (ended or time.perf_counter()) - start
            if scope["method"] == "HEAD":
                size = 0
            state["metrics"].observe_request(scope["method"], request.route, status, elapsed, size)
            if self._is_logged(status, elapsed):
                self._log(request, status, elapsed)

    def _is_hidden(self, scope: Scope) -> bool:
        path: str = scope["path"]
        if not path.isprintable() and _CONTROLS.search(path):
            return True
        if self.metrics_port is None or scope["server"][1] != self.metrics_port:
            return False
        path = path.removeprefix(scope["root_path"])
        return not (path == "/metrics" or path == "/health" or path.startswith("/health/"))

    def _is_logged(self, status: int, elapsed: float) -> bool:
        if status >= 400 or elapsed >= self.slow or self.sample == 1:
            return True
        return random.random() < self.sample  # noqa: S311 - chance, not a secret

    def _log(self, request: RequestContext, status: int, elapsed: float) -> None:
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
        scope["state"]["logs"].write(level, message, fields)


def _context(scope: Scope) -> RequestContext:
    id = trace_id = None
    flags = "00"
    has_credentials = False
    for name, value in scope["headers"]:
        if name == b"authorization":
            has_credentials = True
        elif name == b"x-request-id" and _SANE_ID.fullmatch(value):
            id = value.decode()
        elif name == b"traceparent" and (match := _TRACEPARENT.fullmatch(value)):
            trace_id, flags = match[1].decode(), match[2].decode()
    return RequestContext(
        id or trace_id or _new_id(),
        trace_id,
        scope,
        trace_flags=flags,
        has_credentials=has_credentials,
    )


def _new_id() -> str:
    """Unique, and no secret: os.urandom is a system call."""
    return f"{random.getrandbits(128):032x}"


def _server_timing(request: RequestContext, elapsed: float) -> bytes:
    """https://www.w3.org/TR/server-timing/, in ms; what ran in parallel is added up."""
    if not request.spent:
        return b"app;dur=%.2f" % (elapsed * 1000)
    parts = [
        f'{kind};dur={spent.seconds * 1000:.2f};desc="{kind} x{spent.count}"'
        for kind, spent in request.spent.items()
    ]
    parts.append(f"app;dur={request.own_seconds(elapsed) * 1000:.2f}")
    return ", ".join(parts).encode()


def _split(request: RequestContext, elapsed: float) -> dict[str, Any]:
    """What a slow request's time was spent on."""
    fields: dict[str, Any] = {"app_ms": round(request.own_seconds(elapsed) * 1000, 2)}
    for kind, spent in request.spent.items():
        fields[f"{kind}_ms"] = round(spent.seconds * 1000, 2)
        fields[f"{kind}_count"] = spent.count
    if request.slowest_statement is not None:
        fields["slowest_statement"] = request.slowest_statement
        fields["slowest_statement_ms"] = round(request.slowest_seconds * 1000, 2)
    return fields


def refusal(scope: Scope) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """A 503 problem at the least cost: counted, without a line, as there are too many of them."""
    id, status = _context(scope).id, HTTPStatus.SERVICE_UNAVAILABLE
    body = problem_body(status, TOO_MUCH, scope["path"], id)
    scope["state"]["metrics"].observe_request(scope["method"], "refused", status, 0, len(body))
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"retry-after", b"1"),
        (b"x-request-id", id.encode()),
        NO_SNIFFING,
    ]
    return headers, body


def _not_found(scope: Scope) -> ASGIApp:
    return problem(HTTPStatus.NOT_FOUND, HTTPStatus.NOT_FOUND.phrase, scope)


def _stopping(scope: Scope) -> ASGIApp:
    detail = "This worker stops and could not finish the request in time"
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, scope, RETRY_AFTER)


def _too_late(timeout: float, scope: Scope) -> ASGIApp:
    detail = f"The request took longer than {timeout:g} seconds"
    return problem(HTTPStatus.GATEWAY_TIMEOUT, detail, scope, RETRY_AFTER)


def _broken(scope: Scope) -> ASGIApp:
    detail = "Something went wrong here; the log has the reason under this request's id"
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail, scope)
