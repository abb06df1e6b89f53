"""What clients can take of a worker that never read, or send thousands of requests ahead."""

import asyncio
import gc
import logging
import os
import re
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from app.settings import Settings
from benchmarks.client import request_all
from chassis.http.application import include
from chassis.limits.settings import RequestSettings
from chassis.resources import open_resources
from chassis.server.monitor import resident_memory
from chassis.server.worker import MAX_UNSENT
from tests.chassis.server.test_bad_requests import web
from tests.chassis.server.test_http_protocol import TWO, body, serving, start
from tests.chassis.server.test_unread_bodies import chunk
from tests.databases import sqlite_only
from tests.metrics import scrape, total
from tests.process import TIMEOUT, Service, running, wait_until
from tests.service import create_app

pytestmark = pytest.mark.drill

LARGE = "/openapi.json"  # 100 kB and more, and as cheap as it can be
MANY = 5000
MIB = 1024 * 1024


def silent_client(port: int) -> socket.socket:
    """One that reads nothing, and whose kernel keeps as little as possible for it."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    client.connect(("127.0.0.1", port))
    return client


def unsent(port: int) -> list[int]:
    """Of each connection that is established: bytes in the kernel that its client has not taken."""
    fields = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = [each for each in fields if each[1].endswith(f":{port:04X}") and each[3] == "01"]
    return [int(each[4].partition(":")[0], 16) for each in ours]


def memory(service: Service) -> int:
    size = resident_memory(service.workers[0])
    assert size is not None
    return size


@sqlite_only
async def test_clients_that_never_read_are_cut_off_and_take_little_memory(
    environment: dict[str, Any], tmp_path: Path
):
    """Some responses fit into the kernel; what comes after them waits there for its turn."""
    clients = 100
    variables = environment | {"WEB_CONCURRENCY": 1, "WEB_WRITE_TIMEOUT": 3, "LOG_SLOW_REQUEST": 60}
    request = f"GET {LARGE} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    async with running(tmp_path / "log", **variables) as service:
        port = int(service.url.rpartition(":")[2])
        await request_all(service.url, [LARGE], 200)
        before = memory(service)
        silent = [silent_client(port) for _ in range(clients)]
        for each in silent:
            each.sendall(100 * request)
        await wait_until(lambda: sum(map(bool, unsent(port))) == clients, "responses to all")
        queued = unsent(port)
        grown = memory(service) - before
        await wait_until(lambda: service.connections(service.workers[0]) == 0, "their end")
        async with service.client() as client:
            samples = await scrape(client)
        for each in silent:
            each.close()

    assert max(queued) < 2 * MAX_UNSENT
    assert grown < clients * 400_000
    count = total(samples, "http_request_duration_seconds_count", route=LARGE)
    assert count <= 200 + 3 * clients
    # On a busy machine, the monitor finds an event loop that waits for the CPU.
    lines = [line for line in service.lines if line.get("logger") != "app.monitor"]
    assert [line for line in lines if line["level"] in ("ERROR", "WARNING")] == []


async def test_slow_reader_that_goes_on_is_not_cut_off():
    """It takes many times as long as it has for 16 KiB."""
    size = MIB // 2

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(200, [(b"content-length", b"%d" % size)]))
        await send(body(bytes(size)))

    async with serving(app, web(write_timeout=0.5)) as port:
        reader, writer = await slow_streams(port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        took = 0
        async with asyncio.timeout(30):
            while part := await reader.read(2000):
                took += len(part)
                await asyncio.sleep(0.01)
        writer.close()

    assert took > size


async def test_reader_that_takes_next_to_nothing_is_cut_off():
    size = 4 * MIB

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(200, [(b"content-length", b"%d" % size)]))
        await send(body(bytes(size)))

    async with serving(app, web(write_timeout=0.3)) as port:
        reader, writer = await slow_streams(port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        took = 0
        async with asyncio.timeout(20):
            with suppress(ConnectionResetError):
                while part := await reader.read(100):
                    took += len(part)
                    await asyncio.sleep(0.05)
        writer.close()

    assert took < size / 2


async def slow_streams(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Whose kernel and reader keep little that was not read."""
    client = silent_client(port)
    client.setblocking(False)
    return await asyncio.open_connection(sock=client, limit=1)


async def test_response_that_its_client_does_not_take_in_time_is_no_error(
    settings: Settings, caplog: pytest.LogCaptureFixture
):
    """Neither one that is streamed nor one before it that still waits for the client."""
    settings.request = RequestSettings(timeout=0.3)
    app = create_app(settings)
    router = APIRouter()

    @router.get("/endless")
    async def endless() -> StreamingResponse:
        return StreamingResponse(parts())

    async def parts() -> AsyncIterator[bytes]:
        while True:
            yield bytes(65_536)
            await asyncio.sleep(0)

    include(app, router)
    caplog.set_level(logging.WARNING)
    async with open_resources(settings) as resources, serving(app, dict(resources)) as port:
        with silent_client(port) as client:
            client.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
            async with asyncio.timeout(10):
                while not resources["in_flight"]:
                    await asyncio.sleep(0.01)
                while resources["in_flight"]:
                    await asyncio.sleep(0.01)
            with pytest.raises(ConnectionResetError):
                await asyncio.to_thread(read_all, client)

    assert caplog.text == ""


def read_all(client: socket.socket) -> None:
    while client.recv(65_536):
        pass


def parsed_at(port: int) -> int:
    """How many requests a server holds: those that earlier servers left do not count."""
    held = [each for each in gc.get_objects() if isinstance(each, RequestResponseCycle)]
    return sum(each.scope["server"] == ("127.0.0.1", port) for each in held)


async def test_requests_sent_ahead_are_parsed_one_after_the_other():
    """And all of them are answered, in the order in which they came."""
    gate = asyncio.Event()
    paths = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        paths.append(scope["path"])
        await gate.wait()
        await send(start(200, TWO))
        await send(body(b"ok"))

    requests = [b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(MANY)]
    async with serving(app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.writelines(requests)
        while not paths:
            await asyncio.sleep(0)
        for _ in range(100):  # whatever else it would read
            await asyncio.sleep(0)
        parsed = parsed_at(port)
        gate.set()
        async with asyncio.timeout(30):
            for _ in range(MANY):
                await reader.readuntil(b"\r\n\r\nok")
        writer.close()

    assert parsed == 1
    assert paths == [f"/{n}" for n in range(MANY)]


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_requests_sent_ahead_with_bodies_keep_them(framing: str):
    got = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        content, more = b"", True
        while more:
            message = await receive()
            content, more = content + message["body"], message["more_body"]
        got.append((scope["path"], content))
        await send(start(200, TWO))
        await send(body(b"ok"))

    bodies = [os.urandom(n % 3000) + b"\r\n\r\n" for n in range(500)]
    async with serving(app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for n, content in enumerate(bodies):
            if framing == "length":
                fields = b"Content-Length: %d\r\n\r\n%b" % (len(content), content)
            else:
                fields = b"Transfer-Encoding: chunked\r\n\r\n" + chunk(content) + chunk(b"")
            writer.write(b"POST /%d HTTP/1.1\r\nHost: x\r\n" % n + fields)
        async with asyncio.timeout(30):
            for _ in bodies:
                await reader.readuntil(b"\r\n\r\nok")
        writer.close()

    assert got == [(f"/{n}", content) for n, content in enumerate(bodies)]


@sqlite_only
async def test_requests_sent_ahead_to_a_real_worker_take_little_memory(
    environment: dict[str, Any], tmp_path: Path
):
    # Lines of the log would wait in memory while the worker is busy.
    variables = environment | {"WEB_CONCURRENCY": 1, "LOG_ACCESS_SAMPLE": 0}
    connections = 20
    async with running(tmp_path / "log", **variables) as service:
        port = int(service.url.rpartition(":")[2])
        # As many, one after the other: what a worker keeps of them is no matter of these clients.
        await request_all(service.url, ["/health"], connections * MANY // 10, connections)
        before = memory(service)
        streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(connections)]
        most = 0
        for n, (_, writer) in enumerate(streams):
            for each in range(MANY // 10):
                id = b"%d-%d" % (n, each)
                writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Request-ID: %b\r\n\r\n" % id)
        async with asyncio.timeout(60):
            for n, (reader, writer) in enumerate(streams):
                for each in range(MANY // 10):
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]
                    await reader.readexactly(length)
                    assert b"x-request-id: %d-%d\r\n" % (n, each) in head
                most = max(most, memory(service))
                writer.close()

    assert most - before < 12 * MIB  # parsed ahead, they take more than twice that


@sqlite_only
async def test_metrics_count_connections_and_those_refused(
    environment: dict[str, Any], tmp_path: Path
):
    variables = environment | {"WEB_CONCURRENCY": 1, "WEB_MAX_CONNECTIONS": 10}
    async with (
        running(tmp_path / "log", **variables) as service,
        service.client() as client,
    ):
        port = int(service.url.rpartition(":")[2])
        await client.get("/health")
        others = [await asyncio.open_connection("127.0.0.1", port) for _ in range(12)]
        # A refused connection is counted a moment before it is closed.
        await until_counted(client, open=10, refused=3)
        for _, writer in others:
            writer.close()
        await until_counted(client, open=1, refused=3)


async def until_counted(client: httpx.AsyncClient, open: int, refused: int) -> None:
    seen: tuple[float, float] | None = None
    try:
        async with asyncio.timeout(TIMEOUT):
            while seen != (open, refused):
                samples = await scrape(client)
                seen = (
                    total(samples, "http_connections"),
                    total(samples, "http_connections_refused_total"),
                )
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{seen} connections are open and refused") from None
