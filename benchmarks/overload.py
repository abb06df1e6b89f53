"""What clients see at five times the rate that a worker can take: who is served, how fast.

Requests come at a rate, whether or not the ones before were answered, as those of many clients do.
They request what no cache holds.
"""

import asyncio
import time
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
import uvloop

from benchmarks.service import ROOT, Service, fill, one_worker
from chassis.development.private_servers import embedded_valkey, private_mariadb
from chassis.server.monitor import resident_memory

PATH = "/v1/books/7"
REQUEST = f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\nCache-Control: no-cache\r\n\r\n".encode()
AT_ONCE = float("inf")
CLIENTS = 1_000  # at most so many requests are on their way
USUAL = 0.6  # of what the worker can take, for what is usual
TIMES = 5
SECONDS = 60
WARM_UP = 5  # s
MUCH_SLOWER = 3
SOON = 0.05  # s
FLAT = 16 * 2**20  # bytes


@dataclass
class Seen:
    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    other: int = 0
    unsent: int = 0
    broken: int = 0  # connections that were closed or refused

    def __str__(self) -> str:
        accepted = f"{len(self.accepted)} accepted, p99 {p99(self.accepted) * 1000:.1f} ms"
        if self.broken:
            accepted += f"; {self.broken} connections closed or refused"
        if not self.refused:
            return accepted
        return (
            f"{accepted}; {len(self.refused)} refused, median {median(self.refused) * 1000:.1f} ms"
            f" (and {self.unsent} not sent, for want of a free client)"
        )


class Client(asyncio.Protocol):
    """In `idle` while it may send; closed by the service, it is counted and sends no more."""

    def __init__(self, seen: Seen, idle: list["Client"]) -> None:
        self.seen = seen
        self.idle = idle
        self.is_open = self.is_waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.parser = httptools.HttpResponseParser(self)
        self.is_open = True
        self.idle.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = self.is_waiting = False
        self.seen.broken += 1

    def request(self) -> None:
        self.start = time.perf_counter()
        self.is_waiting = True
        # The service may have begun to close it, which connection_lost has yet to tell.
        if not self.transport.is_closing():
            self.transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        seconds = time.perf_counter() - self.start
        self.is_waiting = False
        match self.parser.get_status_code():
            case 200:
                self.seen.accepted.append(seconds)
            case 503 | 429:
                self.seen.refused.append(seconds)
            case _:
                self.seen.other += 1
        if self.parser.should_keep_alive():
            self.idle.append(self)
        else:
            self.transport.close()


async def send(service: Service, rate: float, seconds: float, clients: int = CLIENTS) -> Seen:
    """At `rate` 1/s; if that is AT_ONCE, as fast as `clients` have their answers."""
    seen, idle = Seen(), list[Client]()
    host, port = urlsplit(service.url).hostname or "", urlsplit(service.url).port or 80
    loop = asyncio.get_running_loop()
    for _ in range(clients):
        try:
            await loop.create_connection(lambda: Client(seen, idle), host, port)
        except OSError:
            seen.broken += 1
    every = [*idle]
    await asyncio.sleep(1)  # until the worker has accepted them all
    start, sent = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        due = min(rate * elapsed - sent, 2 * clients)
        sent += int(due) if rate < AT_ONCE else 0
        while due >= 1 and idle:
            client = idle.pop()
            if client.is_open:
                client.request()
                due -= 1
        if rate < AT_ONCE:
            seen.unsent += int(due)
        await asyncio.sleep(0.001)
    while any(client.is_waiting for client in every):  # noqa: ASYNC110 - nothing hangs on when
        await asyncio.sleep(0.01)
    broken = seen.broken
    for client in every:
        client.transport.close()
    return replace(seen, broken=broken)


def p99(seconds: list[float]) -> float:
    return quantiles(seconds, n=100)[-1] if len(seconds) > 1 else float("inf")


def main() -> None:
    with service() as worker:
        run(send(worker, AT_ONCE, WARM_UP, clients=16))
        full = run(send(worker, AT_ONCE, 2 * WARM_UP, clients=16))
        most = len(full.accepted) / (2 * WARM_UP)
        before = run(send(worker, USUAL * most, 2 * WARM_UP))
        run(send(worker, TIMES * most, WARM_UP))  # opens what it may
        memory = memory_of(worker)
        over = run(send(worker, TIMES * most, SECONDS))
        grown = memory_of(worker) - memory
        after = run(send(worker, USUAL * most, 2 * WARM_UP))
    slower = p99(over.accepted) / p99(full.accepted)
    refused = median(over.refused or [0])
    print(f"With 16 clients:      {full}: {most:.0f} a second are what it can take")
    print(f"At {USUAL:.0%} of that:       {before}")
    print(f"At {TIMES} times, for {SECONDS} s: {over}")
    print(f"At {USUAL:.0%} again:         {after}")
    print(f"p99 at {TIMES} times that: {slower:.1f} times as long (budget {MUCH_SLOWER})")
    print(f"Memory grew by {grown / 2**20:.1f} MiB")
    if over.other or full.refused or before.refused or after.refused:
        raise SystemExit("Some were refused before or after, or had another answer")
    raise SystemExit(slower > MUCH_SLOWER or refused > SOON or grown > FLAT)


def run(sending: Coroutine[Any, Any, Seen]) -> Seen:
    return uvloop.run(sending)


def memory_of(service: Service) -> int:
    return resident_memory(service.worker) or 0


@contextmanager
def service() -> Iterator[Service]:
    var = ROOT / "var"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        mariadb = stack.enter_context(private_mariadb(folder / "mariadb", var, say=print))
        valkey = stack.enter_context(embedded_valkey(folder / "valkey"))
        asyncio.run(fill(mariadb.url))
        variables = {"DATABASE_URL": mariadb.url, "REDIS_URL": valkey.url, "LIMITS_ENABLED": "0"}
        yield stack.enter_context(one_worker(**variables))


if __name__ == "__main__":
    main()
