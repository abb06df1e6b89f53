"""uvicorn's HTTP protocol, at less cost for what most requests are: whole answers, and too many.

It also bounds what a client may send besides a body, and refuses what is no proper request. A
response to a request whose body was not read ends the connection: what is left of the body would
have to be read to find the next request.
"""

import asyncio
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import httptools
from starlette.types import Message, Send
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from app.addresses import unmapped
from app.errors import problem_body
from app.middleware.request import NO_SNIFFING, refusal
from app.request_head import MAX_HEAD, BadRequest, BodyParser, check_head
from app.settings import WebSettings

BODY_FIELDS = (b"content-length", b"transfer-encoding")
CONTROLS = bytes({*range(32), 127} - {*b"\t"})
BODILESS = (204, 304)
DEFAULTS = WebSettings()
LINGER = 2  # s
MAX_DISCARDED = 1_048_576  # bytes


class HttpProtocol(HttpToolsProtocol):
    """Refuses what is too much before it costs a task, and sends an answer in one piece.

    Under an overload most of a worker's time goes into saying no. From the middleware that costs
    a task and a chain of calls; the middleware does it where another server runs the application.
    """

    lingering = False
    refused = False  # what else the client sends is thrown away
    unparsed = 0  # bytes since the last whole head or part of a body: the parser holds them
    host: bytes | None = None  # the last one that was good
    header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.client is not None:
            self.client = (unmapped(self.client[0]), self.client[1])
        settings = self.app_state.get("settings")  # none in an application that is not ours
        self.web: WebSettings = settings.web if settings else DEFAULTS
        if len(self.connections) > self.web.max_connections:
            transport.abort()
        else:
            self._start_header_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_header_timer()
        super().connection_lost(exc)

    def _start_header_timer(self) -> None:
        if self.header_timer is None:
            timeout = self.web.header_timeout
            self.header_timer = self.loop.call_later(timeout, self._on_header_timeout)

    def _stop_header_timer(self) -> None:
        if self.header_timer is not None:
            self.header_timer.cancel()
            self.header_timer = None

    def _on_header_timeout(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
        else:  # the requests before it get their responses
            self.refused = True
            self.close_after(self.cycle)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self.unparsed + len(data) <= MAX_HEAD:
            self._parse(data)
            return
        rest = memoryview(data)
        while rest and not self.refused and not self.transport.is_closing():
            size = MAX_HEAD - self.unparsed
            if not size:
                status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
                self.refuse(status, f"Request line and headers may have {MAX_HEAD} bytes")
                return
            self._parse(rest[:size])
            rest = rest[size:]

    def _parse(self, data: bytes | memoryview) -> None:
        if self.refused or self.lingering:
            return
        cycle = self.cycle
        more, size = (cycle.more_body, len(cycle.body)) if cycle is not None else (False, 0)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            reason = error.__context__ if isinstance(error.__context__, BadRequest) else None
            self.refuse(HTTPStatus.BAD_REQUEST, str(reason or "This is not valid HTTP"))
        if self.cycle is cycle and (
            cycle is None or (len(cycle.body) == size and cycle.more_body == more)
        ):
            self.unparsed += len(data)
            self._start_header_timer()
        else:
            self.unparsed = 0
            self._stop_header_timer()

    def _feed(self, data: bytes | memoryview) -> None:
        """Raises HttpParserError."""
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                data = memoryview(data)[upgrade.args[0] :]
            self._ignore_upgrade()

    def on_headers_complete(self) -> None:
        self.host = check_head(self.parser.get_http_version(), self.headers, self.host)
        super().on_headers_complete()
        # Trailers come after the body, and are no headers (RFC 9110, 6.5.1).
        self.headers = []

    def _should_upgrade(self) -> bool:
        return False

    def _ignore_upgrade(self) -> None:
        """Go on with the request as if it had not asked for another protocol (RFC 9110, 7.8).

        The parser takes it for whole, and what follows for the other protocol.
        """
        fields = [field for field in self.cycle.scope["headers"] if field[0] in BODY_FIELDS]
        if fields:
            self.cycle.more_body = True
            self.cycle.message_event.clear()
            self.parser = BodyParser(self).resume(self.cycle.scope["http_version"], fields)

    def refuse(self, status: int, detail: str) -> None:
        """Respond to what cannot be served, after all requests before it, and close."""
        if self.refused or self.lingering or self.transport.is_closing():
            return
        self.refused = True
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                self.close_after(cycle)  # without a response to what follows it
                return
            if cycle.response_started or self.pipeline:
                self.transport.close()
                return
            cycle.disconnected = True  # the request cannot be completed
            cycle.message_event.set()
        body = problem_body(status, detail, "", None)
        if metrics := self.app_state.get("metrics"):
            metrics.observe_request("", "refused", status, 0, len(body))
        headers = (
            *self.server_state.default_headers,
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"connection", b"close"),
            NO_SNIFFING,
        )
        lines = [b"%b: %b\r\n" % field for field in headers]
        self.transport.write(b"".join((STATUS_LINE[status], *lines, b"\r\n", body)))
        self.linger()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self.lingering:
            return  # it came with a body that nobody has read
        scope: Any = cycle.scope
        state = self.app_state
        workload = state.get("workload")  # none in an application that is not ours
        # A client that sends the next requests ahead of the answers takes the usual way.
        if workload and not self.pipeline and workload.refuses(scope, len(state["in_flight"])):
            headers, body = refusal(scope)
            if any(name in BODY_FIELDS for name, _ in scope["headers"]):
                self.close_after(cycle)
            write_whole(cycle, 503, headers, body)
        else:

            async def run(scope: Any, receive: Any, send: Any) -> None:
                await app(scope, receive, in_one_piece(self, cycle, send))

            super()._start_asgi_task(cycle, run)

    def close_after(self, cycle: RequestResponseCycle) -> None:
        """Close the connection when the response of `cycle` is complete."""
        cycle.keep_alive = False
        cycle.transport = LingeringTransport(self)  # type: ignore[assignment]

    def linger(self) -> None:
        """Close the connection when the client has read the response, or soon.

        To close it while data comes in would reset it, and what is on its way to the client would
        be lost. https://www.rfc-editor.org/rfc/rfc9112#section-9.6
        """
        if self.transport.is_closing():
            return
        self.lingering = True
        self.transport.set_protocol(Remainder(self))
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def on_response_complete(self) -> None:
        if self.lingering:
            self.server_state.total_requests += 1
        else:
            super().on_response_complete()


class LingeringTransport:
    """What a cycle uses of a transport, but that it closes when the client has the response."""

    def __init__(self, protocol: HttpProtocol) -> None:
        self.protocol = protocol
        self.write = protocol.transport.write
        self.is_closing = protocol.transport.is_closing
        self.close = protocol.linger


class Remainder(asyncio.Protocol):
    """Throws away what a client still sends after the response: for a while, and so much of it."""

    def __init__(self, protocol: HttpProtocol) -> None:
        self.protocol = protocol
        self.transport = protocol.transport
        self.left = MAX_DISCARDED
        self.timer = protocol.loop.call_later(LINGER, self.transport.close)

    def data_received(self, data: bytes) -> None:
        self.left -= len(data)
        if self.left < 0:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.timer.cancel()
        self.protocol.connection_lost(error)


def in_one_piece(protocol: HttpProtocol, cycle: RequestResponseCycle, send: Send) -> Send:
    """A `send` that keeps the head until it is known what follows, as ASGI has it."""
    start: Message | None = None

    async def send_in_one_piece(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start" and not cycle.response_started:
            start = message
            return
        held, start = start, None
        if held is not None:
            if cycle.more_body:
                protocol.close_after(cycle)
            whole = not (message.get("more_body") or cycle.flow.write_paused or cycle.disconnected)
            body = message.get("body", b"")
            if whole and write_whole(cycle, held["status"], held.get("headers", ()), body):
                return
            await send(held)
        await send(message)

    return send_in_one_piece


def write_whole(
    cycle: RequestResponseCycle, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes
) -> bool:
    """Write the answer, unless there is something about it that uvicorn should look at."""
    length = None
    lines = [STATUS_LINE[status]]
    for name, value in (*cycle.default_headers, *headers):
        if name == b"content-length":
            length = int(value)
        elif name in (b"connection", b"transfer-encoding"):
            return False
        lines.append(b"%b: %b\r\n" % (name, value))
    if not cycle.keep_alive:
        lines.append(b"connection: close\r\n")
    lines.append(b"\r\n")
    head = b"".join(lines)
    if len(head) - len(head.translate(None, CONTROLS)) != 2 * len(lines):
        return False  # a header holds the end of a line
    if cycle.scope["method"] == "HEAD" or status in BODILESS:
        body = b""
    elif length != len(body):
        return False
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(head + body)
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True
