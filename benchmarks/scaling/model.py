"""A closed queueing network: clients that send the next request when the last response is whole.

Mean value analysis (Reiser and Lavenberg, 1980): each resource is a queue that needs so much time
of each request, its demand, and a request finds there what one client fewer would have left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True)
class Resource:
    """`demand`: CPU time for a request, s; `servers`: CPUs that share it."""

    demand: float
    servers: int = 1


@dataclass(frozen=True)
class Point:
    rate: float  # responses per second
    response: float  # mean response time, s


def closed(resources: Sequence[Resource], clients: int) -> Point:
    """With several servers by Seidmann's approximation: a faster queue, and a wait without one."""
    queues = [resource.demand / resource.servers for resource in resources]
    waits = sum(
        resource.demand * (resource.servers - 1) / resource.servers for resource in resources
    )
    lengths = [0.0] * len(queues)
    point = Point(0, 0)
    for count in range(1, clients + 1):
        times = [demand * (1 + length) for demand, length in zip(queues, lengths, strict=True)]
        response = waits + sum(times)
        point = Point(count / response, response)
        lengths = [point.rate * each for each in times]
    return point


def response_time(demand: float, utilisation: float) -> float:
    """Mean, of a resource that strangers send requests to, at any time and of any length (M/G/1,
    each served in turn for a little while): s."""
    return demand / (1 - utilisation)


def servers_for(demand: float, rate: float, utilisation: float) -> int:
    """So many that each is busy for no more than this share of the time."""
    return ceil(demand * rate / utilisation)
