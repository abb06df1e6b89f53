"""Clients that cost little, so that the CPU time goes to the service."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import cast
from urllib.parse import urlsplit

import httptools


@dataclass
class Tally:
    """Responses by status with their times, and connections that broke while one was awaited."""

    responses: Counter[int] = field(default_factory=Counter)
    broken: int = 0
    latencies: list[float] = field(default_factory=list)  # s


async def request_all(
    url: str,
    paths: Sequence[str],
    requests: int,
    clients: int = 32,
    tally: Tally | None = None,
    headers: str = "",
) -> Tally:
    """Request `paths` so many times, in turn, over kept-alive connections; fills `tally`.

    `headers`: lines for each request, with their ends.
    """
    return await _request(url, islice(cycle(paths), requests), clients, tally or Tally(), headers)


async def request_for(
    url: str, paths: Iterable[str], seconds: float, clients: int = 32, headers: str = ""
) -> Tally:
    """The same as long as that; it ends when the last response has come."""
    ends_at = time.perf_counter() + seconds

    def until_then() -> Iterator[str]:
        for path in paths:
            if time.perf_counter() > ends_at:
                return
            yield path

    return await _request(url, until_then(), clients, Tally(), headers)


async def _request(
    url: str, paths: Iterator[str], clients: int, tally: Tally, headers: str
) -> Tally:
    host, port = urlsplit(url).hostname or "", urlsplit(url).port or 80
    loop = asyncio.get_running_loop()

    async def keep_asking() -> None:
        client = Client(paths, tally, loop.create_future(), headers)
        while not client.done:
            client.ended = loop.create_future()
            await loop.create_connection(lambda: client, host, port)
            await client.ended

    await asyncio.gather(*(keep_asking() for _ in range(clients)))
    return tally


class Client(asyncio.Protocol):
    """Sends a request when the answer to the last one is whole; connects again when told to."""

    def __init__(
        self,
        paths: Iterator[str],
        tally: Tally,
        ended: "asyncio.Future[None]",
        headers: str = "",
    ) -> None:
        self.paths = paths
        self.tally = tally
        self.ended = ended
        self.head = f" HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode()
        self.done = False
        self.waiting = False
        self.path = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.parser = httptools.HttpResponseParser(self)
        self._ask()

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.tally.broken += self.waiting
        self.waiting = False
        self.ended.set_result(None)

    def on_message_complete(self) -> None:
        self.waiting = False
        self.tally.latencies.append(time.perf_counter() - self.asked)
        self.tally.responses[self.parser.get_status_code()] += 1
        if self.parser.should_keep_alive():
            self._ask()
        else:
            self.transport.close()

    def _ask(self) -> None:
        path = next(self.paths, None)
        self.path = path or ""
        if path is None:
            self.done = True
            self.transport.close()
            return
        self.waiting = True
        self.asked = time.perf_counter()
        self.transport.write(b"GET " + path.encode() + self.head)
