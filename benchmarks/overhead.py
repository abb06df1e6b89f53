"""What this service costs beside the least possible, as ratios of CPU time; exits 1 above a budget.

The CPU time of a worker changes little with what else the machine does, and its ratio to another
worker's, in short turns, hardly with the machine. `make drill` runs it too
(tests/project/test_overhead.py).
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from benchmarks.client import request_all
from benchmarks.service import ROOT, Service, fill, one_worker, under_uvicorn
from chassis.development.private_servers import embedded_valkey, private_mariadb

HEALTH, ITEM, PAGE = "/health", "/v1/books/7", "/v1/books?limit=20"
TURNS = 10
REQUESTS = 1_000  # in each turn
MIX = 1_500  # uncached reads of each kind, before memory is read
NO_STORE = "Cache-Control: no-store\r\n"
TOLERANCE = 1.3  # for what else the machine does


@dataclass(frozen=True)
class Budget:
    """`limit`: of the ratio to bare FastAPI's /health, or of MiB."""

    what: str
    measured: float
    limit: float

    @property
    def is_kept(self) -> bool:
        return self.measured <= self.limit * TOLERANCE

    def __str__(self) -> str:
        fails = self.limit * TOLERANCE
        return f"{self.what}: {self.measured:.2f} (budget {self.limit}, fails above {fails:.2f})"


def main() -> None:
    budgets = check()
    for budget in budgets:
        print(budget)
    raise SystemExit(not all(budget.is_kept for budget in budgets))


def check(turns: int = TURNS, requests: int = REQUESTS) -> list[Budget]:
    with services() as (bare, ours):
        asked = [(bare, HEALTH), (ours, HEALTH), (ours, ITEM)]
        for service, path in asked:
            cost(service, path, requests)  # what happens once is not of interest
        costs = [[cost(*each, requests) for each in asked] for _ in range(turns)]
        for path in (ITEM, PAGE):
            cost(ours, path, MIX, NO_STORE)
        memory = ours.private_memory()
    return [
        Budget("/health, CPU time to bare FastAPI's", ratio(costs, 1), 1.2),
        Budget("A cached response, CPU time to bare FastAPI's /health", ratio(costs, 2), 1.4),
        Budget("Private memory of the worker after uncached reads, MiB", memory, 60),
    ]


def ratio(costs: Sequence[Sequence[float]], index: int) -> float:
    """Of the sums: one turn is only some ticks of the kernel's clock."""
    return sum(turn[index] for turn in costs) / sum(turn[0] for turn in costs)


@contextmanager
def services() -> Iterator[tuple[Service, Service]]:
    """Bare FastAPI, and this service with a response in its cache."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        mariadb = private_mariadb(folder / "mariadb", ROOT / "var", say=print)
        variables = {
            "DATABASE_URL": stack.enter_context(mariadb).url,
            "REDIS_URL": stack.enter_context(embedded_valkey(folder / "valkey")).url,
            "JOBS_URL": stack.enter_context(embedded_valkey(folder / "queue")).url,
        }
        asyncio.run(fill(variables["DATABASE_URL"]))
        bare = stack.enter_context(under_uvicorn("benchmarks.designs.bare:app", "--no-access-log"))
        yield bare, stack.enter_context(one_worker(**variables))


def cost(service: Service, path: str, requests: int, headers: str = "") -> float:
    """Seconds of CPU time for so many requests."""
    start = service.cpu_time()
    tally = uvloop.run(request_all(service.url, [path], requests, headers=headers))
    if tally.responses != {200: requests}:
        raise SystemExit(f"Some requests failed: {tally.responses}, {tally.broken} broken")
    return service.cpu_time() - start


if __name__ == "__main__":
    main()
