"""What stands on the wire, whatever the application sends."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send
from uvicorn import Config, Server

from chassis.server.http_protocol import HttpProtocol

Ask = Callable[[str, list[Message]], Awaitable[tuple[bytes, bytes]]]
GET = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
TWO = [(b"content-length", b"2"), (b"x-mine", b"a")]


def start(status: int, headers: list[tuple[bytes, bytes]]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(content: bytes, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more}


@asynccontextmanager
async def serving(
    app: Any, state: dict[str, Any] | None = None, listener: socket.socket | None = None
) -> AsyncIterator[int]:
    config = Config(app, port=0, http=HttpProtocol, lifespan="off", log_config=None)
    server = Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    server.lifespan.state = state or {}
    await server.startup([listener] if listener else None)
    server.server_state.default_headers = [(b"date", b"today")]
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        await server.shutdown()


@pytest.fixture
async def ask() -> AsyncIterator[Ask]:
    messages: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    async with serving(app) as port:

        async def ask(request: str, response: list[Message]) -> tuple[bytes, bytes]:
            messages[:] = response
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request.encode())
            async with asyncio.timeout(10):
                head, _, content = (await reader.read(-1)).partition(b"\r\n\r\n")
            writer.close()
            return head, content

        yield ask


async def test_whole_answer(ask: Ask):
    head, content = await ask(GET, [start(200, TWO), body(b"ok")])

    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 200 OK"
    assert set(lines[1:]) == {
        b"date: today",
        b"content-length: 2",
        b"x-mine: a",
        b"connection: close",
    }
    assert content == b"ok"


async def test_whole_answer_is_written_at_once(ask: Ask, monkeypatch: pytest.MonkeyPatch):
    written = []
    made = HttpProtocol.connection_made

    def connection_made(self: HttpProtocol, transport: Any) -> None:
        made(self, transport)

        class Noting:
            def write(self, data: bytes) -> None:
                written.append(data)
                transport.write(data)

            def __getattr__(self, name: str) -> Any:
                return getattr(transport, name)

        self.transport = Noting()  # type: ignore[assignment]

    monkeypatch.setattr(HttpProtocol, "connection_made", connection_made)
    await ask(GET, [start(200, TWO), body(b"ok")])
    assert len(written) == 1

    await ask(GET, [start(200, []), body(b"o", more=True), body(b"k")])
    assert len(written) > 2


@pytest.mark.parametrize("status", [204, 304])
async def test_answer_without_a_body(ask: Ask, status: int):
    head, content = await ask(GET, [start(status, [(b"etag", b'"a"')]), body(b"")])

    assert b'etag: "a"' in head
    assert b"transfer-encoding" not in head
    assert content == b""


async def test_head_has_the_length_and_no_body(ask: Ask):
    head, content = await ask(GET.replace("GET", "HEAD"), [start(200, TWO), body(b"ok")])

    assert b"content-length: 2" in head
    assert content == b""


async def test_stream(ask: Ask):
    response = [start(200, []), body(b"one", more=True), body(b"two", more=True), body(b"")]
    head, content = await ask(GET, response)

    assert b"transfer-encoding: chunked" in head
    assert content == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


async def test_body_without_a_length(ask: Ask):
    head, content = await ask(GET, [start(200, []), body(b"ok")])

    assert b"transfer-encoding: chunked" in head
    assert content == b"2\r\nok\r\n0\r\n\r\n"


@pytest.mark.parametrize("closing", [[(b"connection", b"close")], []])
async def test_connection_closes_when_either_side_says_so(
    ask: Ask, closing: list[tuple[bytes, bytes]]
):
    request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n" if closing else "GET / HTTP/1.0\r\n\r\n"
    head, content = await ask(request, [start(200, TWO + closing), body(b"ok")])

    assert head.count(b"connection: close") == 1
    assert content == b"ok"


async def test_requests_sent_ahead_are_answered_in_order(ask: Ask):
    request = GET.replace("close", "keep-alive")
    _, content = await ask(request * 3 + GET, [start(200, TWO), body(b"ok")])

    assert content.count(b"HTTP/1.1 200 OK") == 3
    assert content.endswith(b"\r\n\r\nok")


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb", b"a\0b"])
async def test_header_cannot_hold_another(ask: Ask, value: bytes, caplog: pytest.LogCaptureFixture):
    head, content = await ask(GET, [start(200, [*TWO, (b"x", value)]), body(b"ok")])

    assert b"set-cookie" not in head
    assert b"ok" not in content
    assert "Invalid HTTP header value" in caplog.text


@pytest.mark.parametrize("sent", [b"o", b"okay"])
async def test_wrong_length_is_an_error(ask: Ask, sent: bytes, caplog: pytest.LogCaptureFixture):
    _, content = await ask(GET, [start(200, TWO), body(sent)])

    assert len(content) <= 2
    assert "than Content-Length" in caplog.text


async def test_application_that_sends_no_body_is_an_error(
    ask: Ask, caplog: pytest.LogCaptureFixture
):
    head, _ = await ask(GET, [start(200, TWO)])

    assert head.startswith(b"HTTP/1.1 500")
    assert "without starting response" in caplog.text


async def test_client_by_ipv4_is_seen_as_such_by_a_socket_for_both_versions():
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["client"][0])
        for message in [start(200, TWO), body(b"ok")]:
            await send(message)

    both = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    async with serving(app, listener=both) as port:
        for line in ("", "X-Forwarded-For: 192.0.2.1\r\n"):  # trusted, as that is 127.0.0.1
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET.replace("Host: x\r\n", f"Host: x\r\n{line}").encode())
            await reader.read(-1)
            writer.close()

    assert seen == ["127.0.0.1", "192.0.2.1"]
