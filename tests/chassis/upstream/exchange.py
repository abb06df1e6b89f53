"""Both ends of an exchange: the client with settings, and a server that speaks HTTP by hand."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import httpx2 as httpx

from chassis.telemetry.metrics import Metrics
from chassis.upstream.client import open_http_client
from chassis.upstream.settings import HttpSettings

Answer = Callable[[str, dict[str, str]], Awaitable[bytes]]


@asynccontextmanager
async def client_with(**settings: float) -> AsyncIterator[httpx.AsyncClient]:
    # A busy machine may take more than the second that a connection has by default.
    chosen = HttpSettings(**{"backoff": 0.01, "connect_timeout": 30, **settings})
    async with open_http_client(chosen, "tests/1", Metrics()) as client:
        yield client


@asynccontextmanager
async def server(response: Answer) -> AsyncIterator[str]:
    """One that speaks HTTP by hand; it leaves connections open."""
    writers = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.strip().split("\r\n")
                headers = {line.split(": ")[0].lower(): line.split(": ", 1)[1] for line in lines}
                await reader.readexactly(int(headers.get("content-length", 0)))
                writer.write(await response(first, headers))
                await writer.drain()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as started:
        yield f"http://127.0.0.1:{started.sockets[0].getsockname()[1]}/"
        for writer in writers:
            writer.close()
