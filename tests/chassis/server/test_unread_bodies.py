"""A response to a request whose body was not read ends the connection, and is not lost."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from app.settings import Settings
from chassis.files.settings import FilesSettings
from chassis.limits.settings import LimitsSettings
from chassis.resources import Resources, open_resources
from chassis.server import lingering_close
from chassis.server.lingering_close import MAX_DISCARDED
from tests.chassis.server.test_http_protocol import TWO, body, serving, start
from tests.service import create_app

INNER = b"GET /inner HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
LARGE = 64 * MAX_DISCARDED


class Wire:
    """A connection, and what came back."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10)

    def send(self, *parts: bytes) -> bool:
        """Whether the server took it all."""
        try:
            for part in parts:
                self.socket.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def read(self, until: bytes | None = None) -> bytes:
        """All up to there, else up to the end of the connection."""
        content = b""
        while until is None or until not in content:
            received = self.socket.recv(65_536)
            if not received:
                break
            content += received
        return content


Talk = Callable[[int], Any]


async def talk(port: int, conversation: Callable[[Wire], Any]) -> Any:
    """In a thread: sockets that block are what simple clients have."""

    def run() -> Any:
        wire = Wire(port)
        with wire.socket:
            return conversation(wire)

    return await asyncio.to_thread(run)


def head(method: str, length: int | None, *fields: str, path: str = "/") -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = [f"{method} {path} HTTP/1.1", "Host: x", framing, *fields, "", ""]
    return "\r\n".join(lines).encode()


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


class App:
    """Reads no body, unless it is told to, and notes what it was asked for."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.reads = False
        self.response: list[Message] = [start(200, TWO), body(b"ok")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.paths.append(scope["path"])
        while self.reads and (await receive()).get("more_body"):
            pass
        for message in self.response:
            await send(message)


@pytest.fixture(autouse=True)
def time_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than any wait of these tests, so that nothing ends by it."""
    monkeypatch.setattr(lingering_close, "LINGER", 600)


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
async def port(app: App) -> AsyncIterator[int]:
    async with serving(app) as port:
        yield port


STREAM = [start(200, []), body(b"o", more=True), body(b"k")]


@pytest.mark.parametrize("response", [None, STREAM], ids=["whole", "stream"])
@pytest.mark.parametrize("length", [LARGE, None], ids=["length", "chunked"])
async def test_body_that_still_comes_is_not_read_and_the_response_arrives(
    app: App, port: int, length: int | None, response: list[Message] | None
):
    app.response = response or app.response
    part = bytes(65_536)

    def send_all_first(wire: Wire) -> tuple[bool, bytes]:
        wire.send(head("POST", length))
        pieces = LARGE // len(part) * [part if length else chunk(part)]
        return wire.send(*pieces), wire.read()

    taken, content = await talk(port, send_all_first)

    assert content.startswith(b"HTTP/1.1 200 OK")
    assert content.count(b"connection: close\r\n") == 1
    assert b"ok" in content or b"1\r\nk\r\n0\r\n\r\n" in content
    assert not taken
    assert app.paths == ["/"]


async def test_connection_ends_when_the_client_has_the_response(app: App, port: int):
    def wait_first(wire: Wire) -> bytes:
        wire.send(head("POST", LARGE), b"some of it")
        return wire.read()

    content = await talk(port, wait_first)  # not after the time that a client has to go on

    assert content.endswith(b"\r\n\r\nok")


async def test_client_that_goes_on_for_a_while_is_not_reset(app: App, port: int):
    def go_on(wire: Wire) -> tuple[bytes, bool]:
        wire.send(head("POST", MAX_DISCARDED))
        content = wire.read()
        return content, all(wire.send(bytes(MAX_DISCARDED // 16)) for _ in range(16))

    content, taken = await talk(port, go_on)

    assert content.endswith(b"\r\n\r\nok")
    assert taken


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("length", [len(INNER), None], ids=["length", "chunked"])
async def test_body_is_never_taken_for_a_request(
    app: App, port: int, length: int | None, at_once: bool
):
    content = INNER if length else chunk(INNER) + chunk(b"")

    def send_more(wire: Wire) -> bytes:
        if at_once:
            wire.send(head("POST", length) + content + LAST)
            return wire.read()
        wire.send(head("POST", length))
        first = wire.read(b"ok")
        wire.send(content, INNER)
        return first + wire.read()

    responses = await talk(port, send_more)

    assert app.paths == (["/", "/last"] if at_once else ["/"])
    assert responses.count(b"HTTP/1.1 200") == len(app.paths)
    assert responses.count(b"connection: close") == 1


async def test_body_that_was_read_leaves_the_connection_open(app: App, port: int):
    app.reads = True

    def ask_twice(wire: Wire) -> bytes:
        wire.send(head("POST", 100_000), bytes(100_000))
        first = wire.read(b"ok")
        wire.send(head("GET", 0))
        return first + wire.read(b"ok")

    responses = await talk(port, ask_twice)

    assert responses.count(b"200 OK") == 2
    assert b"connection: close" not in responses


# Of the service itself.


@pytest.fixture
def settings(settings: Settings, tmp_path: Any) -> Settings:
    settings.files = FilesSettings(url=f"file://{tmp_path}")
    return settings


async def refuse(resources: Resources, settings: Settings, request: bytes) -> bytes:
    async with serving(create_app(settings), dict(resources)) as port:

        def ask(wire: Wire) -> bytes:
            wire.send(request, chunk(b"{") if b"chunked" in request else b"{")
            return wire.read()

        content: bytes = await talk(port, ask)
        return content


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/purchases", 401),
        ("DELETE", "/v1/purchases/1", 401),
        ("PUT", "/v1/purchases/1/receipt", 401),
        ("PATCH", "/v1/users/me", 401),
        ("POST", "/v1/nowhere", 404),
        ("PUT", "/v1/purchases", 405),
        ("GET", "/v1/purchases/1", 404),
        ("POST", "/v1/purchases?a=1", 422),
    ],
)
@pytest.mark.parametrize("length", [1000, None], ids=["length", "chunked"])
async def test_refusal_does_not_wait_for_the_body(
    resources: Resources, settings: Settings, method: str, path: str, status: int, length: int
):
    fields = ("Content-Type: application/json", "Expect: 100-continue")
    content = await refuse(resources, settings, head(method, length, *fields, path=path))

    assert content.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close\r\n" in content
    assert b"100 Continue" not in content
    assert b'"instance"' in content


async def test_editor_is_refused_as_early(resources: Resources, settings: Settings, token: str):
    fields = (f"Authorization: Bearer {token}", "Expect: 100-continue")
    receipt = head("PUT", 1000, *fields, "Content-Type: text/plain", path="/v1/purchases/1/receipt")
    large = head("POST", 2_000_000, *fields, path="/v1/purchases")
    missing = head("DELETE", 1000, *fields, path="/v1/purchases/1")

    for request, status in ((receipt, 415), (large, 413), (missing, 404)):
        content = await refuse(resources, settings, request)

        assert content.startswith(b"HTTP/1.1 %d " % status)
        assert b"connection: close\r\n" in content
        assert b"100 Continue" not in content


async def test_chunked_body_is_refused_where_it_becomes_too_large(
    resources: Resources, settings: Settings, token: str
):
    fields = (f"Authorization: Bearer {token}", "Content-Type: application/json")
    request = head("POST", None, *fields, path="/v1/purchases") + 20 * chunk(bytes(65_536))

    content = await refuse(resources, settings, request)

    assert content.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close\r\n" in content


async def test_limited_client_is_refused_before_its_body_is_read(settings: Settings):
    settings.limits = LimitsSettings(login_burst=1, login_rate=0.001)
    form = "Content-Type: application/x-www-form-urlencoded"
    request = head("POST", 1, form, "Connection: close", path="/v1/tokens")

    async with open_resources(settings) as resources:
        first = await refuse(resources, settings, request)
        content = await refuse(resources, settings, head("POST", 1000, form, path="/v1/tokens"))

    assert first.startswith(b"HTTP/1.1 422 ")

    assert content.startswith(b"HTTP/1.1 429 ")
    assert b"connection: close\r\n" in content


@pytest.mark.parametrize("has_body", [True, False])
async def test_overload_closes_connections_whose_body_is_not_read(
    resources: Resources, settings: Settings, has_body: bool
):
    resources["admission"].max_in_flight = 0
    request = head("POST", len(INNER), path="/v1/purchases") + INNER if has_body else INNER

    async with serving(create_app(settings), dict(resources)) as port:

        def ask(wire: Wire) -> bytes:
            wire.send(request + LAST)
            return wire.read()

        content = await talk(port, ask)

    assert content.startswith(b"HTTP/1.1 503 ")
    assert content.count(b"connection: close\r\n") == 1
    assert content.count(b"HTTP/1.1") == (1 if has_body else 2)
