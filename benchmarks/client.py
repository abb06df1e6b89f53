"""Clients that cost little, so that the machine's time goes to the service they ask."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import cast
from urllib.parse import urlsplit

import httptools


@dataclass
class Asked:
    """What came back: answers by status, and connections that broke while one was awaited."""

    answers: Counter[int] = field(default_factory=Counter)
    broken: int = 0


async def ask(
    url: str,
    paths: Sequence[str],
    requests: int,
    clients: int = 32,
    asked: Asked | None = None,
) -> Asked:
    """Ask `requests` times for `paths`, in turn, over kept-alive connections; fills `asked`."""
    host, port = urlsplit(url).hostname or "", urlsplit(url).port or 80
    asked = asked or Asked()
    remaining = islice(cycle(paths), requests)
    loop = asyncio.get_running_loop()

    async def keep_asking() -> None:
        client = Client(remaining, asked, loop.create_future())
        while not client.done:
            client.ended = loop.create_future()
            await loop.create_connection(lambda: client, host, port)
            await client.ended

    await asyncio.gather(*(keep_asking() for _ in range(clients)))
    return asked


class Client(asyncio.Protocol):
    """Sends a request when the answer to the last one is whole; connects again when told to."""

    def __init__(self, paths: Iterator[str], asked: Asked, ended: "asyncio.Future[None]") -> None:
        self.paths = paths
        self.asked = asked
        self.ended = ended
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
        self.asked.broken += self.waiting
        self.waiting = False
        self.ended.set_result(None)

    def on_message_complete(self) -> None:
        self.waiting = False
        self.asked.answers[self.parser.get_status_code()] += 1
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
        self.transport.write(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode())
