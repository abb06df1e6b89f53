"""Short turns of load, in rounds: what changes the machine changes it for all services."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles

import uvloop

from benchmarks.client import Tally, request_for
from benchmarks.service import Service

CLIENTS = 32
QUIET = 0.1  # s without CPU time, after which a service is at rest
PATIENCE = 20  # s


@dataclass(frozen=True)
class Plan:
    """`limit`: s, after which no further turn begins, once each service has had one."""

    rounds: int = 5
    seconds: float = 2.4  # of each turn
    warm_up: float = 1.0
    limit: float = 450


QUICK = Plan(rounds=2, seconds=0.5, warm_up=0.3, limit=120)


@dataclass(frozen=True)
class Sample:
    """Of one turn."""

    rate: float  # responses per second
    p50: float  # ms, as are the next two
    p95: float
    p99: float
    cpu: float  # µs of the workers per response
    errors: int


@dataclass(frozen=True)
class Turn:
    """A service is asked for `paths`; `label` says for what, `name` who it is."""

    label: str
    name: str
    service: Service
    paths: Iterator[str]
    headers: str = ""


Samples = Mapping[tuple[str, str], Sequence[Sample]]  # by label and name


def measure(turns: Sequence[Turn], plan: Plan, advance: Callable[[str], None]) -> Samples:
    """`advance` is called after each turn."""
    samples: dict[tuple[str, str], list[Sample]] = {(turn.label, turn.name): [] for turn in turns}
    start = time.monotonic()
    for turn in turns:
        take(turn, plan.warm_up)  # what happens once is not of interest
        advance("warm-up")
    for number in range(plan.rounds):
        # Nobody always comes after the same neighbour.
        for turn in turns if number % 2 else reversed(turns):
            if number and time.monotonic() - start > plan.limit:
                return samples
            samples[turn.label, turn.name].append(take(turn, plan.seconds))
            advance(f"round {number + 1}")
    return samples


def take(turn: Turn, seconds: float) -> Sample:
    service = turn.service
    wait_for_rest(service)
    spent, start = service.cpu_time(), time.perf_counter()
    tally = uvloop.run(request_for(service.url, turn.paths, seconds, CLIENTS, turn.headers))
    elapsed = time.perf_counter() - start
    wait_for_rest(service)  # what follows the last response belongs to it too
    return sample_of(tally, elapsed, service.cpu_time() - spent)


def sample_of(tally: Tally, elapsed: float, spent: float) -> Sample:
    responses = tally.responses.total()
    if responses < 2:
        return Sample(0, 0, 0, 0, 0, errors=responses - tally.responses[200] + tally.broken)
    cuts = quantiles(tally.latencies, n=100)
    return Sample(
        rate=responses / elapsed,
        p50=cuts[49] * 1000,
        p95=cuts[94] * 1000,
        p99=cuts[98] * 1000,
        cpu=spent / responses * 1e6,
        errors=responses - tally.responses[200] + tally.broken,
    )


def wait_for_rest(service: Service) -> None:
    """Until it does nothing any more: a slow service may still work for clients that have left."""
    deadline = time.monotonic() + PATIENCE
    before = -1.0
    while (now := service.cpu_time()) > before and time.monotonic() < deadline:
        before = now
        time.sleep(QUIET)
