import asyncio
import logging
import re
import time

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis.addresses import unmapped
from chassis.auth.credentials import FindKey
from chassis.errors import RETRY_AFTER, ResponseTimeout
from chassis.http.metrics import HttpMetrics
from chassis.http.request_state import HttpState
from chassis.limits.load_shedding import OVERLOADED
from chassis.limits.settings import RequestSettings
from chassis.problems.handlers import handled
from chassis.problems.response import problem, problem_body
from chassis.request_context import (
    READ_ANY,
    READ_PRIMARY,
    SAFE_METHODS,
    RequestContext,
    context_of,
    current_request,
    read_position,
)
from chassis.tasks.timeout import Timeout
from chassis.telemetry.access_log import AccessLog
from chassis.telemetry.settings import LogSettings
from chassis.telemetry.tracing import current_trace_id, is_traced

# Not found: the `$` of a route's regular expression also matches before a final line feed.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
INTERNAL_ERROR = "Internal error; the service's log has the reason under this request_id"
STOPPED = "The worker stopped before the request was complete"

log = logging.getLogger("app.request")


class RequestMiddleware:
    """One ASGI middleware for all that each request needs; several would cost more.

    It sheds load, creates the RequestContext, adds the headers that all responses have, enforces
    REQUEST_TIMEOUT, turns unhandled errors into problems, and writes metrics and the access log.
    An error after the response has begun is raised instead, so that the server closes the
    connection. See docs/observability.md.
    """

    def __init__(
        self,
        app: ASGIApp,
        request: RequestSettings,
        log: LogSettings,
        metrics_port: int | None,
        find_key: FindKey | None = None,
    ) -> None:
        """`metrics_port`: serves only health and metrics."""
        self.app = app
        self.find_key = find_key
        self.timeout = request.timeout
        self.log = AccessLog(log)
        self.traced = is_traced()
        self.metrics_port = metrics_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        start = time.perf_counter()
        state: HttpState = scope["state"]
        cors = state["response_headers"].cors
        is_preflight = cors.is_preflight(scope)
        if not is_preflight and state["admission"].should_shed(scope, len(state["in_flight"])):
            headers, body = shed_response(scope)
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            return await send({"type": "http.response.body", "body": body})
        request = self._begin(scope, start)
        task = asyncio.current_task()
        state["in_flight"][task] = request
        status = size = 0
        ended: float | None = None
        is_sending = False

        async def send_with_headers(message: Message) -> None:
            nonlocal status, size, ended, is_sending
            if message["type"] == "http.response.start":
                status = message["status"]
                elapsed = time.perf_counter() - start
                own = message["headers"]
                message["headers"] = [
                    *own,  # not in place: the response may be sent again
                    *request.response_headers,
                    (b"x-request-id", request.id.encode()),
                    (b"x-process-time", b"%.6f" % elapsed),
                    (b"server-timing", request.server_timing(elapsed)),
                    *state["response_headers"].of(
                        scope["headers"], scope.get("scheme", "http"), own
                    ),
                ]
            elif message["type"] == "http.response.body":
                size += len(message.get("body", b""))
                if not message.get("more_body"):
                    ended = time.perf_counter()  # background tasks may follow
            is_sending = True
            await send(message)
            is_sending = False

        try:
            with Timeout(self.timeout, task) as timeout:
                app = cors.preflight(scope) if is_preflight else self.app
                if self._is_hidden(scope):
                    app = problem(404, "Not Found", scope)
                await app(scope, receive, send_with_headers)
        except asyncio.CancelledError:
            if not status:  # the worker stops, and its grace period has ended
                response = problem(503, STOPPED, scope, RETRY_AFTER)
                await response(scope, receive, send_with_headers)
            raise
        except Exception as error:
            timed_out = isinstance(error, TimeoutError) and timeout.expired
            if timed_out and is_sending:
                raise ResponseTimeout from None
            if status:
                # A part of the response was sent, and the server closes the connection; or all of
                # it, and a background task has failed. The server logs the error.
                status = status if ended else 500
                _report(error, request)
                raise
            response = await self._error_response(request, error, timed_out)
            await response(scope, receive, send_with_headers)
        finally:
            del state["in_flight"][task]
            self._end(request, status, size, (ended or time.perf_counter()) - start)

    def _begin(self, scope: Scope, start: float) -> RequestContext:
        request = context_of(scope)
        request.deadline = start + self.timeout
        if self.traced:
            request.trace_id = current_trace_id()
        client = scope["client"]
        if client and ":" in client[0]:  # may come from a proxy's header
            scope["client"] = (unmapped(client[0]), client[1])
        if scope["method"] == "HEAD":
            # RFC 9110, 14.2: Range only has a meaning for GET.
            scope["headers"] = [field for field in scope["headers"] if field[0] != b"range"]
        state: HttpState = scope["state"]
        if not request.has_credentials:
            state["claims"] = state["valid_claims"] = None
        elif self.find_key is not None:
            state["find_key"] = self.find_key
        current_request.set(request)
        # An account reads its own writes, and a write must not depend on older data.
        needs_all = request.has_credentials or scope["method"] not in SAFE_METHODS
        read_position.set(READ_PRIMARY if needs_all else READ_ANY)
        return request

    def _end(self, request: RequestContext, status: int, size: int, elapsed: float) -> None:
        scope = request.scope
        state: HttpState = scope["state"]
        size = 0 if scope["method"] == "HEAD" else size
        observe = state["metrics"].of(HttpMetrics).observe_request
        observe(scope["method"], request.route, status, elapsed, size)
        self.log.write(request, status, elapsed)

    async def _error_response(
        self, request: RequestContext, error: Exception, timed_out: bool
    ) -> Response:
        scope = request.scope
        if timed_out:
            detail = f"The request took longer than {self.timeout:g} s"
            return problem(504, detail, scope, RETRY_AFTER)
        try:
            return await handled(error, scope)
        except Exception as unhandled:
            log.exception("Unhandled error")
            _report(unhandled, request)
            return problem(500, INTERNAL_ERROR, scope)

    def _is_hidden(self, scope: Scope) -> bool:
        path: str = scope["path"]
        if not path.isprintable() and _CONTROLS.search(path):
            return True
        if self.metrics_port is None or scope["server"][1] != self.metrics_port:
            return False
        path = path.removeprefix(scope["root_path"])
        return not (path == "/metrics" or path == "/health" or path.startswith("/health/"))


def _report(error: Exception, request: RequestContext) -> None:
    state: HttpState = request.scope["state"]
    state["error_reports"].send(error, f"{request.scope['method']} {request.route}")


def shed_response(scope: Scope) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """A 503 problem at the least cost: counted, but not in the access log."""
    state: HttpState = scope["state"]
    id = context_of(scope).id
    body = problem_body(503, OVERLOADED, scope["path"], id)
    observe = state["metrics"].of(HttpMetrics).observe_request
    observe(scope["method"], "refused", 503, 0, len(body))
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"retry-after", b"1"),
        (b"x-request-id", id.encode()),
        *state["response_headers"].of(scope["headers"], scope.get("scheme", "http")),
    ]
    return headers, body
