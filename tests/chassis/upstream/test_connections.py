"""What is sent and received, byte by byte, and which error of httpx each failure is."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2 as httpx
import pytest

from tests.chassis.upstream.exchange import client_with

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Peer:
    """A server that sends `response` for each request that ends with `end`, then closes or not."""

    def __init__(self, response: bytes, end: bytes, close: bool) -> None:
        self.response, self.end, self.close = response, end, close
        self.received: list[bytes] = []
        self.connections: list[asyncio.StreamWriter] = []
        self.url = ""

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        try:
            while True:
                self.received.append(await reader.readuntil(self.end))
                writer.write(self.response)
                await writer.drain()
                if self.close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()


@asynccontextmanager
async def peer(
    response: bytes = OK, end: bytes = b"\r\n\r\n", close: bool = False
) -> AsyncIterator[Peer]:
    server = Peer(response, end, close)
    async with await asyncio.start_server(server.talk, "127.0.0.1", 0, limit=2**22) as started:
        server.url = f"http://127.0.0.1:{started.sockets[0].getsockname()[1]}"
        yield server
        for writer in server.connections:
            writer.close()


async def test_connection_is_used_again():
    async with peer() as server, client_with() as client:
        for _ in range(3):
            assert (await client.get(server.url)).text == "ok"

    assert len(server.connections) == 1


async def test_connection_that_the_server_has_closed_is_replaced():
    async with peer() as server, client_with() as client:
        await client.get(server.url)
        server.connections[0].close()
        await server.connections[0].wait_closed()
        assert (await client.get(server.url)).text == "ok"

    assert len(server.connections) == 2


async def test_target_and_headers_are_sent_as_they_are():
    async with peer() as server, client_with() as client:
        url = server.url.replace("//", "//mary:a%20b@")
        headers = [("X-Two", "1"), ("X-Two", "2")]
        await client.get(f"{url}/a%2Fb/%C3%A9?q=1%2B1&empty=&q=2#part", headers=headers)

    [received] = server.received
    first, *lines = received.decode().strip().split("\r\n")
    assert first == "GET /a%2Fb/%C3%A9?q=1%2B1&empty=&q=2 HTTP/1.1"
    host = server.url.removeprefix("http://")
    assert sorted(lines) == sorted([
        f"Host: {host}",
        "Accept: */*",
        "Accept-Encoding: identity",
        "Connection: keep-alive",
        "User-Agent: tests/1",
        "Authorization: Basic bWFyeTphIGI=",
        "X-Two: 1",
        "X-Two: 2",
    ])  # fmt: skip


async def parts() -> AsyncIterator[bytes]:
    yield b"first, "
    yield b"last"


@pytest.mark.parametrize(
    ("body", "end", "sent"),
    [
        ({"content": b"whole"}, b"whole", b"\r\nContent-Length: 5\r\n"),
        ({"content": b""}, b"\r\n\r\n", b"\r\nContent-Length: 0\r\n"),
        ({"content": b"x" * 2**21 + b"end"}, b"end", b"\r\nContent-Length: 2097155\r\n"),
        ({"json": {"a": 1}}, b'{"a":1}', b"\r\nContent-Type: application/json\r\n"),
        ({"content": parts()}, b"7\r\nfirst, \r\n4\r\nlast\r\n0\r\n\r\n", b": chunked\r\n"),
        ({"files": {"f": ("n", b"file")}}, b"file\r\n--x--\r\n", b'name="f"; filename="n"'),
    ],
    ids=["bytes", "empty", "large", "json", "chunks", "files"],
)
async def test_bodies(body: dict[str, Any], end: bytes, sent: bytes):
    headers = {"Content-Type": "multipart/form-data; boundary=x"} if "files" in body else {}
    async with peer(end=end) as server, client_with() as client:
        response = await client.post(server.url, headers=headers, **body)

    assert response.text == "ok"
    [received] = server.received
    assert sent in received
    assert received.count(b"Content-Length") + received.count(b"chunked") == 1


@pytest.mark.parametrize(
    ("response", "status", "body"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
        (b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n", 302, ""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, "ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, "ok"),
    ],
    ids=["no content", "redirect", "continue", "chunks"],
)
async def test_responses(response: bytes, status: int, body: str):
    async with peer(response) as server, client_with() as client:
        got = await client.get(server.url)
        again = await client.get(server.url)

    assert (got.status_code, got.text) == (again.status_code, again.text) == (status, body)
    assert len(server.received) == 2


async def test_response_without_a_length_ends_with_the_connection():
    long = "x" * 60_000
    head = f"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Long: {long}\r\n\r\n"
    async with (
        peer(head.encode() + b"until the end", close=True) as server,
        client_with() as client,
    ):
        got = await client.get(server.url)

    assert got.text == "until the end"
    assert got.headers.get_list("Set-Cookie") == ["a=1", "b=2"]
    assert got.headers["X-Long"] == long


async def test_head_has_no_body():
    response = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    async with peer(response) as server, client_with() as client:
        got = await client.head(server.url)

    assert (got.content, got.headers["Content-Length"]) == (b"", "1000")


@pytest.mark.parametrize(
    "response",
    [b"", b"SSH-2.0-OpenSSH\r\n", OK.replace(b": 2", b": 20"), OK.replace(b": 2", b": two")],
    ids=["nothing", "another protocol", "too short", "no length"],
)
async def test_server_that_does_not_speak_http(response: bytes):
    async with peer(response, close=True) as server, client_with(retries=2) as client:
        with pytest.raises(httpx.RemoteProtocolError) as raised:
            await client.get(f"{server.url}/?key=secret")

    assert "secret" not in f"{raised.value} {raised.value.__cause__}"
    assert len(server.received) == 3  # each attempt is one of ours


async def test_server_that_does_not_respond():
    async with peer(b"") as server, client_with(read_timeout=0.1, retries=0) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.get(server.url)

    assert len(server.received) == 1


async def test_server_that_does_not_accept():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]  # more than its queue holds
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(address)
        async with client_with(connect_timeout=0.2, retries=0) as client:
            with pytest.raises(httpx.ConnectTimeout) as raised:
                await client.get(f"http://127.0.0.1:{address[1]}/?key=secret")
        for each in waiting:
            each.close()

    assert "secret" not in f"{raised.value} {raised.value.__cause__}"


async def test_server_without_tls():
    async with peer(close=True, end=b"\x00") as server, client_with(retries=0) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(server.url.replace("http:", "https:"))


@pytest.mark.parametrize(
    ("scheme", "headers", "error"),
    [
        ("ftp:", {}, httpx.UnsupportedProtocol),
        ("http:", {"X-Two": "a\r\nb"}, httpx.LocalProtocolError),
    ],
    ids=["another protocol", "a line break in a header"],
)
async def test_request_that_cannot_be_sent(
    scheme: str, headers: dict[str, str], error: type[Exception]
):
    async with peer() as server, client_with(breaker_failures=1) as client:
        for _ in range(2):  # that is no failure of the server
            with pytest.raises(error):
                await client.get(server.url.replace("http:", scheme), headers=headers)

    assert server.received == []


async def test_no_free_connection_is_no_failure_of_the_server():
    async with (
        peer(b"") as server,
        client_with(max_connections=1, pool_timeout=0.1, breaker_failures=1) as client,
    ):
        hanging = asyncio.create_task(client.get(server.url))
        while not server.received:
            await asyncio.sleep(0.01)
        for _ in range(2):
            with pytest.raises(httpx.PoolTimeout):
                await client.get(server.url)
        server.connections[0].write(OK)
        assert (await hanging).text == "ok"
