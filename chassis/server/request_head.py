"""Checks the head of a request before the application gets it."""

import re
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import httptools

MAX_HEAD = 65_536  # bytes of request line and headers, and of trailers
VERSIONS = ("1.1", "1.0")
HEAD_CALLBACKS = ("on_message_begin", "on_url", "on_header", "on_headers_complete")
# RFC 9110, 7.2: `host [":" port]`, limited to the characters of names and addresses.
HOST = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
WHITESPACE = (b" ", b"\t")

Field = tuple[bytes, bytes]


class BadRequest(ValueError):
    """The head is well-formed but not acceptable; the text is for the client."""


def check_head(version: str, headers: list[Field], good: bytes | None) -> bytes | None:
    """Returns the host; raises BadRequest. `good`: a host that is known to be valid.

    Whitespace after a value is removed: it is no part of it (RFC 9112, 5), and the parser skips it
    only before the value.
    """
    if version not in VERSIONS:
        raise BadRequest("Only HTTP/1.1 and HTTP/1.0 are served")
    hosts = []
    for at, (name, value) in enumerate(headers):
        if value.endswith(WHITESPACE):
            value = value.rstrip(b" \t")
            headers[at] = name, value
        if name == b"host":
            hosts.append(value)
        elif name == b"transfer-encoding" and (value.lower() != b"chunked" or version == "1.0"):
            # RFC 9112, 6.1. The parser passes `gzip, chunked`: the body would be that of gzip.
            raise BadRequest("The only transfer coding is chunked, in HTTP/1.1")
    if len(hosts) == 1:
        if hosts[0] != good and not HOST.fullmatch(hosts[0]):
            raise BadRequest("The Host header is not of the form host:port")
        return hosts[0]
    if hosts or version == "1.1":
        raise BadRequest(f"There are {len(hosts)} Host headers; send one")
    return None


def body_parser(protocol: Any, version: str, framing: Iterable[Field]) -> Any:
    """A parser for the body of a request after another parser has read its head.

    It is fed a head with the same framing, without callbacks to the protocol. Raises
    HttpParserError if the framing is invalid.
    """
    quiet = True

    def unless_quiet(callback: Callable[..., None]) -> Callable[..., None]:
        return lambda *arguments: None if quiet else callback(*arguments)

    callbacks = {name: unless_quiet(getattr(protocol, name)) for name in HEAD_CALLBACKS}
    callbacks |= {name: getattr(protocol, name) for name in ("on_body", "on_message_complete")}
    parser = httptools.HttpRequestParser(SimpleNamespace(**callbacks))
    parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
    lines = [b"%b: %b\r\n" % field for field in framing]
    parser.feed_data(b"POST / HTTP/%b\r\n%b\r\n" % (version.encode(), b"".join(lines)))
    quiet = False
    return parser
