"""Kept-alive connections of one worker: the memory of each, and what a request among them costs."""

import asyncio
import time
from collections import deque
from statistics import median
from typing import cast
from urllib.parse import urlsplit

import httptools
import uvloop

from benchmarks.comparison.measure import Plan, wait_for_rest
from benchmarks.comparison.stage import Stage
from benchmarks.growth.cost import Advance, Cost, lowest
from benchmarks.growth.lines import Chart
from benchmarks.growth.report import Report, curves, report_of
from benchmarks.growth.setup import Setup
from benchmarks.service import Service

COUNTS = (1, 10, 100, 1_000, 5_000)
AT_ONCE = 32  # requests on their way
BATCH = 100  # connections that are opened at once
BOOK = "/v1/books/7"
REQUEST = f"GET {BOOK} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


class Connection(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.parser = httptools.HttpResponseParser(self)
        self.ended: asyncio.Future[int] | None = None

    def connection_lost(self, error: Exception | None) -> None:
        if self.ended is not None and not self.ended.done():
            self.ended.set_result(0)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        assert self.ended is not None
        self.ended.set_result(self.parser.get_status_code())

    async def request(self) -> int:
        """Its status; 0 if the connection is closed."""
        if self.transport.is_closing():
            return 0
        self.ended = asyncio.get_running_loop().create_future()
        self.transport.write(REQUEST)
        return await self.ended


def measure_connections(setup: Setup) -> Report:
    counts = COUNTS[:-1] if setup.quick else COUNTS
    # One more than those that are measured may connect.
    most = str(counts[-1] + 10)
    with (
        setup.running(WEB_MAX_CONNECTIONS=most) as service,
        setup.advancing("connections", len(counts) * setup.plan.rounds) as advance,
    ):
        costs, memory = uvloop.run(measure(setup.stage, service, counts, setup.plan, advance))
    each = (memory[-1] - memory[1]) / (counts[-1] - counts[1]) * 1024
    chart = Chart(
        "connections",
        f"A cached book, {AT_ONCE} requests at once: CPU time per response, µs",
        "kept-alive connections of a worker",
        curves({"a cached book": costs}),
    )
    note = (
        f"Private memory of the worker, MiB: {' → '.join(f'{value:.1f}' for value in memory)};"
        f" {each:.1f} KiB for each connection."
    )
    title = "Connections of a worker"
    return report_of("connections", title, "connections", {"a cached book": costs}, [chart], note)


async def measure(
    stage: Stage, service: Service, counts: tuple[int, ...], plan: Plan, advance: Advance
) -> tuple[dict[float, Cost], list[float]]:
    """Costs by the number of connections, and the private memory of the worker at each, MiB."""
    idle: deque[Connection] = deque()
    costs: dict[float, Cost] = {}
    memory: list[float] = []
    for count in counts:
        await _open(service.url, idle, count - len(idle))
        await _take(stage, service, idle, plan.warm_up)
        taken = []
        for _ in range(plan.rounds):
            taken.append(await _take(stage, service, idle, plan.seconds))
            advance(f"{count:,}")
        memory.append(service.private_memory())
        costs[count] = lowest(taken)
    for connection in idle:
        connection.transport.close()
    return costs, memory


async def _open(url: str, idle: deque[Connection], count: int) -> None:
    """Each has sent one request, so that it has all that belongs to it."""
    host, port = urlsplit(url).hostname or "", urlsplit(url).port or 80
    loop = asyncio.get_running_loop()
    for start in range(0, count, BATCH):
        opening = (
            loop.create_connection(Connection, host, port) for _ in range(min(BATCH, count - start))
        )
        opened = [connection for _, connection in await asyncio.gather(*opening)]
        for connection in opened:
            assert await connection.request() == 200
        idle.extend(opened)


async def _take(stage: Stage, service: Service, idle: deque[Connection], seconds: float) -> Cost:
    """The next request goes to the connection that has rested longest."""
    latencies: list[float] = []
    errors = 0
    wait_for_rest(service)
    ends_at = time.perf_counter() + seconds

    async def keep_asking() -> None:
        nonlocal errors
        while (start := time.perf_counter()) < ends_at:
            connection = idle.popleft()
            errors += await connection.request() != 200
            idle.append(connection)
            latencies.append(time.perf_counter() - start)

    worker, servers = service.cpu_time(), stage.cpu_time()
    await asyncio.gather(*(keep_asking() for _ in range(min(AT_ONCE, len(idle)))))
    wait_for_rest(service)
    return Cost(
        p50=median(latencies) * 1000,
        worker=(service.cpu_time() - worker) / len(latencies) * 1e6,
        servers=(stage.cpu_time() - servers) / len(latencies) * 1e6,
        errors=errors,
    )
