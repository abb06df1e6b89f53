import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from chassis.addresses import unmapped
from chassis.browsers.cors import Fields
from chassis.browsers.response_headers import ResponseHeaders
from chassis.errors import ResponseTimeout
from chassis.http.metrics import HttpMetrics
from chassis.http.middleware import shed_response
from chassis.problems.response import problem_body
from chassis.server.lingering_close import DiscardingProtocol, LingeringTransport
from chassis.server.metrics import WorkerMetrics
from chassis.server.pipelining import BODY_FIELDS, SequentialProtocol
from chassis.server.settings import WebSettings
from chassis.server.timers import Timer, WriteTimer, reset
from chassis.server.whole_response import in_one_piece, write_whole

DEFAULTS = WebSettings()


class HttpProtocol(SequentialProtocol):
    """Limits connections and slow clients, sheds load, and writes responses whole (docs/limits.md).

    Load is shed before the request gets a task: under overload a worker spends most of its time on
    refusals. RequestMiddleware does the same on other servers. The response to a request with
    a body that was not read closes the connection, as the next request begins only after it.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.client is not None:
            self.client = (unmapped(self.client[0]), self.client[1])
        settings = self.app_state.get("settings")  # none in another application
        web: WebSettings = settings.web if settings else DEFAULTS
        self.header_timer = Timer(web.header_timeout)
        self.write_timer = WriteTimer(web.write_timeout, transport)
        # `pause_writing` is called for all that the kernel does not take at once.
        transport.set_write_buffer_limits(0)
        metrics = self.app_state.get("metrics")
        self.metrics: WorkerMetrics | None = metrics and metrics.of(WorkerMetrics)
        if self.metrics:
            self.metrics.connections.inc()
        if len(self.connections) > web.max_connections:
            if self.metrics:
                self.metrics.connections_refused.inc()
            transport.abort()
        else:
            self.header_timer.start(self.on_header_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        self.header_timer.stop()
        self.write_timer.stop()
        if self.metrics:
            self.metrics.connections.dec()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.write_timer.start()

    def resume_writing(self) -> None:
        self.write_timer.stop()
        super().resume_writing()

    def on_header_timeout(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
        else:  # earlier requests get their responses
            self.refused = True
            self.close_after(self.cycle)

    def refuse(self, status: int, detail: str) -> None:
        """Send an error, after the responses to earlier requests, and close."""
        if self.refused or self.lingering or self.transport.is_closing():
            return
        self.refused = True
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                self.close_after(cycle)  # without this error
                return
            if cycle.response_started or self.pipeline:
                self.transport.close()
                return
            cycle.disconnected = True  # the request cannot be completed
            cycle.message_event.set()
        body = problem_body(status, detail, "", None)
        if metrics := self.app_state.get("metrics"):
            metrics.of(HttpMetrics).observe_request("", "refused", status, 0, len(body))
        headers = (
            *self.server_state.default_headers,
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"connection", b"close"),
            *self._headers_for_browsers(),
        )
        lines = [b"%b: %b\r\n" % field for field in headers]
        self.transport.write(b"".join((STATUS_LINE[status], *lines, b"\r\n", body)))
        self.linger()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self.lingering:
            return  # it was sent behind a body that is not read
        scope: Any = cycle.scope
        state = self.app_state
        admission = state.get("admission")  # none in another application
        # A pipelined request is left to the middleware.
        if (
            admission
            and not self.pipeline
            and not state["response_headers"].cors.is_preflight(scope)
            and admission.should_shed(scope, len(state["in_flight"]))
        ):
            headers, body = shed_response(scope)
            if any(name in BODY_FIELDS for name, _ in scope["headers"]):
                self.close_after(cycle)
            write_whole(cycle, 503, headers, body)
        else:

            async def run(scope: Any, receive: Any, send: Any) -> None:
                try:
                    await app(scope, receive, in_one_piece(cycle, send, self.close_after))
                except ResponseTimeout:
                    cycle.disconnected = True
                    reset(self.transport)

            super()._start_asgi_task(cycle, run)

    def _headers_for_browsers(self) -> Fields:
        headers: ResponseHeaders | None = self.app_state.get("response_headers")
        return headers.of(self.headers or ()) if headers else ()

    def close_after(self, cycle: RequestResponseCycle) -> None:
        cycle.keep_alive = False
        transport: Any = LingeringTransport(self.transport, self.linger)
        cycle.transport = transport

    def linger(self) -> None:
        """Close the connection after the client has read the response (RFC 9112, section 9.6).

        To close it while data comes in would reset it, and lose the response.
        """
        if self.transport.is_closing():
            return
        self.lingering = True
        self.transport.set_protocol(DiscardingProtocol(self, self.transport))
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def on_response_complete(self) -> None:
        if self.lingering:
            self.server_state.total_requests += 1
        else:
            super().on_response_complete()
