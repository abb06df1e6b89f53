"""What the head of a request must be like before an application sees it."""

import re
from collections.abc import Iterable
from typing import Any, Protocol

import httptools

MAX_HEAD = 65_536  # bytes of the request line and the headers; and of the trailers of a body
VERSIONS = ("1.1", "1.0")
# RFC 9110, 7.2: `host [":" port]`; of what a URI allows as a host, what names and addresses have.
HOST = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")

Field = tuple[bytes, bytes]


class BadRequest(ValueError):
    """The head is well-formed, and still no request that is served; its text is for the client."""


def check_head(version: str, headers: Iterable[Field], good: bytes | None) -> bytes | None:
    """Returns the host; raises BadRequest. `good`: a host that was checked before."""
    if version not in VERSIONS:
        raise BadRequest("Only HTTP/1.1 and HTTP/1.0 are served")
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) == 1:
        if hosts[0] != good and not HOST.fullmatch(hosts[0]):
            raise BadRequest("The Host header is not of the form host:port")
        return hosts[0]
    if hosts or version == "1.1":
        raise BadRequest(f"There are {len(hosts)} Host headers; send one")
    return None


class Receiver(Protocol):
    """The callbacks of a protocol that a parser of httptools has."""

    def on_message_begin(self) -> None: ...
    def on_url(self, url: bytes) -> None: ...
    def on_header(self, name: bytes, value: bytes) -> None: ...
    def on_headers_complete(self) -> None: ...
    def on_body(self, body: bytes) -> None: ...
    def on_message_complete(self) -> None: ...


class BodyParser:
    """Makes a parser that stands before the body of a request whose head was parsed by another.

    That is done by a head of the same framing, of which the protocol hears nothing.
    """

    def __init__(self, protocol: Receiver) -> None:
        self.protocol = protocol
        self.quiet = True
        self.on_body = protocol.on_body
        self.on_message_complete = protocol.on_message_complete

    def resume(self, version: str, framing: Iterable[Field]) -> Any:
        """Raises HttpParserError where no body can be framed like that."""
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        lines = [b"%b: %b\r\n" % field for field in framing]
        parser.feed_data(b"POST / HTTP/%b\r\n%b\r\n" % (version.encode(), b"".join(lines)))
        self.quiet = False
        return parser

    def on_message_begin(self) -> None:
        if not self.quiet:
            self.protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self.quiet:
            self.protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.quiet:
            self.protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self.quiet:
            self.protocol.on_headers_complete()
