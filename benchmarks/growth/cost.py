"""What a request costs at the points of a curve: response time, CPU time, rows that are read."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle
from statistics import median

import httpx2 as httpx
import uvloop
from sqlalchemy import Connection, create_engine, make_url, text

from benchmarks.client import request_for
from benchmarks.comparison.measure import Plan, wait_for_rest
from benchmarks.comparison.routes import NO_STORE
from benchmarks.comparison.stage import Stage
from benchmarks.service import Service

COUNTED = 3  # times that the rows of a request are counted; background work reads some too
# A client that waits for each response: its response times are not queueing.
PLAN = Plan(rounds=5, seconds=1, warm_up=0.5)
QUICK = Plan(rounds=1, seconds=0.2, warm_up=0.1)

Advance = Callable[[str], None]


@dataclass(frozen=True)
class Probe:
    """`paths` of a service, for the point `x` of a line."""

    line: str
    x: float
    service: Service
    paths: Sequence[str]
    headers: str = NO_STORE
    clients: int = 1
    counts_rows: bool = True


@dataclass(frozen=True)
class Cost:
    """Of a request."""

    p50: float  # ms
    worker: float  # CPU time, µs
    servers: float  # that of MariaDB and Valkey
    rows: float | None = None  # that MariaDB has read
    errors: int = 0  # in all

    @property
    def cpu(self) -> float:
        return self.worker + self.servers


Costs = Mapping[str, Mapping[float, Cost]]  # by line and x


def measure(stage: Stage, probes: Sequence[Probe], plan: Plan, advance: Advance) -> Costs:
    """Of rounds in which each probe has a turn; `advance` is called after each turn."""
    taken: dict[tuple[str, float], list[Cost]] = {(each.line, each.x): [] for each in probes}
    rows = dict[tuple[str, float], float]()
    with _status(stage) as count:
        for probe in probes:
            _request(probe, plan.warm_up)
            if probe.counts_rows:
                rows[probe.line, probe.x] = _rows(probe, count)
            advance(probe.line)
    for number in range(plan.rounds):
        for probe in probes if number % 2 else reversed(probes):
            taken[probe.line, probe.x].append(take(stage, probe, plan.seconds))
            advance(probe.line)
    costs: dict[str, dict[float, Cost]] = {}
    for (line, x), each in taken.items():
        costs.setdefault(line, {})[x] = lowest(each, rows.get((line, x)))
    return costs


def take(stage: Stage, probe: Probe, seconds: float) -> Cost:
    wait_for_rest(probe.service)
    worker, servers = probe.service.cpu_time(), stage.cpu_time()
    latencies, errors = _request(probe, seconds)
    wait_for_rest(probe.service)  # what follows the last response belongs to it too
    count = len(latencies)
    return Cost(
        p50=median(latencies) * 1000,
        worker=(probe.service.cpu_time() - worker) / count * 1e6,
        servers=(stage.cpu_time() - servers) / count * 1e6,
        errors=errors,
    )


def lowest(costs: Sequence[Cost], rows: float | None = None) -> Cost:
    """Of the cheapest round, and the lowest p50: what else the machine does only adds to both."""
    cheapest = min(costs, key=lambda cost: cost.cpu)
    errors = sum(cost.errors for cost in costs)
    return replace(cheapest, p50=min(cost.p50 for cost in costs), rows=rows, errors=errors)


def _request(probe: Probe, seconds: float) -> tuple[list[float], int]:
    """Response times, s, and how many responses were not 200."""
    asking = request_for(
        probe.service.url, cycle(probe.paths), seconds, probe.clients, probe.headers
    )
    tally = uvloop.run(asking)
    if not tally.latencies:
        raise SystemExit(f"No response to {probe.paths[0]}")
    return tally.latencies, tally.responses.total() - tally.responses[200] + tally.broken


def _rows(probe: Probe, count: Callable[[], int]) -> float:
    """Of the cheapest of some requests: a worker reads the epoch each second, too."""
    headers = dict(line.split(": ", 1) for line in probe.headers.splitlines())
    found: list[int] = []
    with httpx.Client(base_url=probe.service.url, headers=headers, timeout=60) as client:
        for number in range(COUNTED):
            before = count()
            client.get(probe.paths[number % len(probe.paths)])
            found.append(count() - before)
    return min(found)


@contextmanager
def _status(stage: Stage) -> Iterator[Callable[[], int]]:
    """What counts the rows that MariaDB has read so far, for anybody."""
    url = make_url(stage.variables["DATABASE_URL"]).set(drivername="mariadb+pymysql")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield lambda: _rows_read(connection)
    engine.dispose()


def _rows_read(connection: Connection) -> int:
    row = connection.execute(text("SHOW GLOBAL STATUS LIKE 'Rows_read'")).one()
    return int(row[1])


def settle(stage: Stage, seconds: float = 30) -> None:
    """Until MariaDB has flushed what was written, or for so long."""
    ends_at = time.monotonic() + seconds
    before = -1.0
    while (now := stage.cpu_time()) > before + 0.02 and time.monotonic() < ends_at:
        before = now
        time.sleep(1)
