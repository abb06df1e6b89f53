from abc import abstractmethod
from http import HTTPStatus

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from chassis.server.request_head import MAX_HEAD, BadRequest, body_parser, check_head
from chassis.server.timers import Timer

BODY_FIELDS = (b"content-length", b"transfer-encoding")
END_OF_HEAD = b"\r\n\r\n"
MIN_PART = 1024  # bytes of a body that are parsed without a search for the end of a head
MAX_AHEAD = 524_288  # bytes; the event loop reads up to half of that at once


class SequentialProtocol(HttpToolsProtocol):
    """Parses a pipelined request only after the response to the request before it.

    A client can send thousands of requests ahead in a few bytes each; parsed, they take a hundred
    times the memory. What comes early is kept unparsed, up to MAX_AHEAD. Heads are limited to
    MAX_HEAD bytes and WEB_HEADER_TIMEOUT, and invalid ones are rejected (docs/limits.md).
    """

    header_timer: Timer
    lingering = False
    refused = False  # further data of the client is discarded
    unparsed = 0  # bytes of an incomplete head, which the parser holds
    ahead = b""  # data that came early, of which `parsed` bytes are parsed
    parsed = 0
    host: bytes | None = None  # the last valid one

    @abstractmethod
    def refuse(self, status: int, detail: str) -> None: ...

    @abstractmethod
    def on_header_timeout(self) -> None: ...

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if not self.ahead:
            self._parse_from(data, 0)
        elif len(self.ahead) - self.parsed > MAX_AHEAD:
            self.transport.abort()
        else:
            self._keep(self.ahead[self.parsed :] + data, 0)

    def _parse_from(self, data: bytes, start: int) -> None:
        """Parse requests until one has to wait for the response before it."""
        while start < len(data) and not (self.refused or self.lingering):
            if self.transport.is_closing():
                return
            if self._must_wait():
                self._keep(data, start)
                return
            end = data.find(END_OF_HEAD, start + MIN_PART if self._is_in_body() else start)
            end = len(data) if end < 0 else end + len(END_OF_HEAD)
            end = min(end, start + MAX_HEAD - self.unparsed)
            if end == start:
                status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
                self.refuse(status, f"Request line and headers may have {MAX_HEAD} bytes")
                return
            self._parse(data if end - start == len(data) else memoryview(data)[start:end])
            start = end

    def _must_wait(self) -> bool:
        """For the response to the last request, or until the client has read it."""
        cycle = self.cycle
        if cycle is None:
            return False
        if cycle.response_complete:
            return self.flow.write_paused
        return not cycle.more_body

    def _is_in_body(self) -> bool:
        cycle = self.cycle
        return cycle is not None and cycle.more_body and not cycle.response_complete

    def _keep(self, data: bytes, parsed: int) -> None:
        self.ahead, self.parsed = data, parsed
        self.flow.pause_reading()

    def parse_ahead(self) -> None:
        if self.ahead and not self._must_wait() and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self.flow.resume_reading()
            data, self.ahead = self.ahead, b""
            self._parse_from(data, self.parsed)

    def _parse(self, data: bytes | memoryview) -> None:
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
            self.header_timer.start(self.on_header_timeout)
        else:
            self.unparsed = 0
            self.header_timer.stop()

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
        # Trailers must not become headers (RFC 9110, section 6.5.1).
        self.headers = []

    def _should_upgrade(self) -> bool:
        return False

    def _ignore_upgrade(self) -> None:
        """Handle the request without the Upgrade header (RFC 9110, section 7.8).

        The parser has stopped after the head, so a new one parses the body.
        """
        fields = [field for field in self.cycle.scope["headers"] if field[0] in BODY_FIELDS]
        if fields:
            self.cycle.more_body = True
            self.cycle.message_event.clear()
            self.parser = body_parser(self, self.cycle.scope["http_version"], fields)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.ahead:
            self.flow.pause_reading()
            self.loop.call_soon(self.parse_ahead)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.parse_ahead()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # Else reference cycles keep heads, bodies and responses until the next garbage collection.
        self.ahead = b""
        self.cycle = self.scope = self.headers = None  # type: ignore[assignment]
        self.pipeline.clear()
