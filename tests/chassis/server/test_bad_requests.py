"""What a worker does with requests that are too large, ambiguous or not HTTP, byte by byte."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from chassis.server.request_head import MAX_HEAD
from chassis.server.settings import WebSettings
from tests.chassis.server.test_http_protocol import serving
from tests.chassis.server.test_unread_bodies import INNER, LARGE, LAST, App, Wire, chunk, head, talk

GET = b"GET / HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
async def port(app: App) -> AsyncIterator[int]:
    async with serving(app) as port:
        yield port


async def send(port: int, *parts: bytes) -> bytes:
    """All that comes back up to the end of the connection."""

    def run(wire: Wire) -> bytes:
        wire.send(*parts)
        return wire.read()

    content: bytes = await talk(port, run)
    return content


def check_problem(response: bytes, status: int) -> None:
    start, _, content = response.partition(b"\r\n\r\n")
    lines = start.split(b"\r\n")
    assert lines[0].startswith(b"HTTP/1.1 %d " % status)
    assert b"content-type: application/problem+json" in lines
    assert b"connection: close" in lines
    assert json.loads(content)["status"] == status


def padded(size: int) -> bytes:
    """A request whose head has so many bytes."""
    start = GET + b"Connection: close\r\nX: "
    return start + (size - len(start) - 4) * b"x" + b"\r\n\r\n"


@pytest.mark.parametrize("piece", [1_000_000, 1000])
async def test_head_may_have_so_many_bytes(app: App, port: int, piece: int):
    whole = padded(MAX_HEAD)

    response = await send(port, *[whole[n : n + piece] for n in range(0, len(whole), piece)])

    assert response.startswith(b"HTTP/1.1 200 OK")
    assert app.paths == ["/"]


@pytest.mark.parametrize(
    "start",
    [GET + b"X: ", GET + 1000 * b"X: y\r\n" + b"X", b"GET /", b"G", b"GET /?", INNER + GET + b"X:"],
    ids=["value", "name", "path", "method", "query", "later request"],
)
async def test_head_without_end_is_refused_while_it_comes(app: App, port: int, start: bytes):
    taken = True

    def run(wire: Wire) -> bytes:
        nonlocal taken
        first = b""
        if start.startswith(INNER):
            wire.send(INNER)
            first = wire.read(b"ok")
        wire.send(start.removeprefix(INNER))
        part = 65_536 * b"x"
        taken = wire.send(*(LARGE // len(part) * [part]))
        return wire.read().removeprefix(first)

    response = await talk(port, run)

    assert not taken
    assert app.paths == (["/inner"] if start.startswith(INNER) else [])
    if response:  # a client that never reads while it sends may miss it
        check_problem(response, 400 if start == b"G" else 431)


@pytest.mark.parametrize("size", [MAX_HEAD + 1, 2 * MAX_HEAD, 16 * MAX_HEAD])
async def test_too_large_a_head_is_refused(app: App, port: int, size: int):
    check_problem(await send(port, padded(size)), 431)

    assert app.paths == []


@pytest.mark.parametrize("end", [b"0\r\nX: ", b"0\r\n", b"1;x="], ids=["value", "lines", "chunk"])
async def test_trailers_are_bounded_as_well(app: App, port: int, end: bytes):
    app.reads = True
    part = 1000 * (b"X: yyyy\r\n" if end == b"0\r\n" else b"x")

    response = await send(port, head("POST", None), chunk(b"a"), end, *(500 * [part]))

    check_problem(response, 431)


async def test_trailers_are_no_headers(port: int, app: App):
    app.reads = True
    seen: list[bytes] = []
    inner = app.__call__

    async def noting(scope, receive, send):
        await inner(scope, receive, send)
        seen.extend(name for name, _ in scope["headers"])

    async with serving(noting) as port:
        await send(port, head("POST", None, "Connection: close"), b"0\r\nAuthorization: a\r\n\r\n")

    assert b"host" in seen
    assert b"authorization" not in seen


async def test_many_requests_ahead_are_no_large_head(app: App, port: int):
    count = 3 * MAX_HEAD // len(INNER)

    response = await send(port, count * INNER + LAST)

    assert response.count(b"HTTP/1.1 200 OK") == count + 1


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET http://x/ HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: x\r\nhost: y\r\n\r\n",
        *(
            b"GET / HTTP/1.1\r\nHost:%b\r\n\r\n" % host
            for host in (
                *(b"", b" a b", b" a,b", b" a/b", b" a@b", b" a:b", b" a:80:80", b" :80"),
                *(b" http://a", b' "a"', b" <a>", b" [::1", b" [x]", b" \xc3\xa9", b" a:123456"),
            )
        ),
        b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.2\r\nHost: x\r\n\r\n",
        b"GET / HTTP/0.9\r\nHost: x\r\n\r\n",
        b"GET /\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GARBAGE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
        *(
            b"GET / HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % field
            for field in (
                b"A: b\r\n c",
                b"A : b",
                b"A: b\0c",
                b"A: b\rc",
                b"A: b\nC: d",
                b": b",
                b"A",
            )
        ),
        *(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %b\r\n\r\n" % length
            for length in (b"", b"-1", b"+1", b"1.0", b"0x1", b"1 1", b"1, 1", b"1" * 30)
        ),
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        *(
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: %b\r\n\r\n" % codings
            for codings in (
                *(b"chunked, gzip", b"gzip, chunked", b"identity", b"chunked, chunked"),
                b"gzip\r\nTransfer-Encoding: chunked",
            )
        ),
        b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    ids=repr,
)
async def test_what_is_no_request_is_refused_as_a_problem(app: App, port: int, request_: bytes):
    check_problem(await send(port, request_ + INNER), 400)

    assert app.paths == []


@pytest.mark.parametrize("host", ["x", "a-b.example.com:8000", "127.0.0.1:80", "[::1]:80", "a_b"])
async def test_hosts_that_are_served(app: App, port: int, host: str):
    request = f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"

    assert (await send(port, request.encode())).startswith(b"HTTP/1.1 200 OK")


async def test_whitespace_around_a_value_is_no_part_of_it(app: App):
    seen: dict[bytes, bytes] = {}

    async def noting(scope, receive, send):
        seen.update(scope["headers"])
        await app(scope, receive, send)

    fields = b"Host: \tx \r\nX-Words: a \t b\t \r\nX-Empty: \t\r\nConnection: close \r\n\r\n"
    async with serving(noting) as port:
        response = await send(port, b"GET / HTTP/1.1\r\n" + fields)

    assert response.startswith(b"HTTP/1.1 200 OK")
    assert seen == {b"host": b"x", b"x-words": b"a \t b", b"x-empty": b"", b"connection": b"close"}


@pytest.mark.parametrize(
    "content",
    [
        *(b"zz\r\n", b"-1\r\na\r\n", b"0x1\r\na\r\n", b" 1\r\na\r\n", b"1 \r\na\r\n", b"\r\n"),
        *(b"1\na\n0\n\n", b"1\r\nab\r\n", b"1" * 17 + b"\r\n", b"1;a\rb\r\na\r\n"),
        b"1\r\na\r\n0\r\nA b\r\n\r\n",
    ],
    ids=repr,
)
async def test_broken_chunk_is_refused_while_its_request_waits_for_it(
    app: App, port: int, content: bytes
):
    app.reads = True

    check_problem(await send(port, head("POST", None), content), 400)


async def test_request_before_a_broken_one_gets_its_response(app: App, port: int):
    response = await send(port, INNER + b"GARBAGE\r\n\r\n")

    first, _, second = response.partition(b"ok")
    assert first.startswith(b"HTTP/1.1 200 OK")
    check_problem(second, 400)


UPGRADES = ["h2c", "websocket", "TLS/1.0", "anything"]


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("length", [len(INNER), None], ids=["length", "chunked"])
@pytest.mark.parametrize("protocol", UPGRADES)
async def test_upgrade_that_is_not_taken_leaves_the_body_what_it_is(
    port: int, protocol: str, length: int | None, at_once: bool
):
    """Java's HTTP client asks for h2c with every first request, bodies included."""
    got: list[tuple[str, bytes]] = []

    async def app(scope, receive, send):
        content, more = b"", True
        while more:
            message = await receive()
            content, more = content + message["body"], message["more_body"]
        got.append((scope["path"], content))
        await App()(scope, receive, send)

    fields = (f"Upgrade: {protocol}", "Connection: Upgrade")
    content = INNER if length else chunk(INNER) + chunk(b"")
    async with serving(app) as port:

        def run(wire: Wire) -> bytes:
            wire.send(head("POST", length, *fields) + (content if at_once else content[:9]))
            if not at_once:
                wire.send(content[9:])
                wire.read(b"ok")
            wire.send(LAST)
            return wire.read()

        await talk(port, run)

    assert got == [("/", INNER), ("/last", b"")]


async def test_upgrade_without_a_body_does_not_lose_what_follows(app: App, port: int):
    upgrade = b"GET /a HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"

    response = await send(port, 1200 * upgrade + LAST)

    assert app.paths == [*(1200 * ["/a"]), "/last"]
    assert response.count(b"HTTP/1.1 200 OK") == 1201


async def test_upgrade_with_a_body_that_is_not_framed_is_refused(app: App, port: int):
    fields = b"Upgrade: h2c\r\nConnection: Upgrade\r\nTransfer-Encoding: gzip\r\n\r\n"
    request = b"POST / HTTP/1.1\r\nHost: x\r\n" + fields

    app.reads = True
    check_problem(await send(port, request + INNER), 400)

    assert "/inner" not in app.paths


def web(**settings: Any) -> dict[str, Any]:
    return {"settings": SimpleNamespace(web=WebSettings(**settings))}


@pytest.mark.parametrize("start", [b"", b"\r\n", GET], ids=["silent", "line", "head"])
async def test_connection_without_a_whole_head_is_closed(app: App, start: bytes):
    """However often a byte of it comes."""

    def drip(wire: Wire) -> None:
        wire.send(start)
        if start == GET:
            while wire.send(b"X: y\r\n"):
                time.sleep(0.01)
        else:
            assert read_to_end(wire) == b""

    async with serving(app, web(header_timeout=0.1)) as port:
        await talk(port, drip)

    assert app.paths == []


async def test_next_head_is_timed_as_well_and_the_time_before_it_is_not(app: App):
    def run(wire: Wire) -> bytes:
        wire.send(INNER)
        first = wire.read(b"ok")
        time.sleep(0.3)  # idle for longer than a head may take
        wire.send(INNER)
        first += wire.read(b"ok")
        wire.send(GET)
        return first + read_to_end(wire)

    async with serving(app, web(header_timeout=0.1)) as port:
        content = await talk(port, run)

    assert content.count(b"HTTP/1.1 200 OK") == 2
    assert app.paths == ["/inner", "/inner"]


def read_to_end(wire: Wire) -> bytes:
    try:
        return wire.read()
    except ConnectionResetError:
        return b""


async def test_slow_response_outlives_an_unfinished_head_after_it():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.3)
        await App()(scope, receive, send)

    async with serving(app, web(header_timeout=0.1)) as port:
        content = await send(port, INNER + GET)

    assert content.startswith(b"HTTP/1.1 200 OK")
    assert content.count(b"HTTP/1.1") == 1


async def test_connections_above_the_limit_are_closed_at_once(app: App):
    async with serving(app, web(max_connections=2)) as port:

        def run(wire: Wire) -> list[bytes]:
            contents = []
            wire.send(INNER)
            wire.read(b"ok")
            second, third = Wire(port), Wire(port)
            for other in (second, third):
                with other.socket:
                    other.send(LAST)
                    contents.append(read_to_end(other))
            return contents

        contents = await talk(port, run)
        response = await send(port, LAST)

    assert [content[:12] for content in contents] == [b"HTTP/1.1 200", b""]
    assert response.startswith(b"HTTP/1.1 200 OK")
