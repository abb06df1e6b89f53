"""What a rate of requests takes: CPUs, connections, network and memory of the cache."""

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.scaling.model import servers_for
from chassis.database.settings import DatabaseSettings

UTILISATION = 0.6  # of a CPU; above it response times grow fast
RATES = (1_000, 10_000, 100_000, 1_000_000)  # requests per second
# A catalogue that most people only read. The service's metrics tell your own shares.
MIX = {"book, cached": 0.80, "book": 0.15, "page of 20": 0.05}
HEADERS = 700  # bytes of a request and of the head of its response, with TCP's and TLS's own


@dataclass(frozen=True)
class Demand:
    """Of one request; times of CPUs in s."""

    worker: float
    mariadb: float
    valkey: float
    size: float  # bytes of the body


@dataclass(frozen=True)
class Size:
    rate: int
    workers: int
    mariadb: int  # CPUs
    valkey: int
    busy: float  # connections to MariaDB that work at the same time
    open: int  # at most, in all pools
    network: float  # Gbit/s


def mixed(demands: Mapping[str, Demand], mix: Mapping[str, float] = MIX) -> Demand:
    shares = [(share, demands[kind]) for kind, share in mix.items()]
    return Demand(
        worker=sum(share * each.worker for share, each in shares),
        mariadb=sum(share * each.mariadb for share, each in shares),
        valkey=sum(share * each.valkey for share, each in shares),
        size=sum(share * each.size for share, each in shares),
    )


def size_for(rate: int, demand: Demand, held: float) -> Size:
    """`held`: s for which a request has a connection, in the mean over all requests."""
    fields = DatabaseSettings.model_fields
    pool = fields["pool_size"].default + fields["max_overflow"].default
    workers = servers_for(demand.worker, rate, UTILISATION)
    return Size(
        rate=rate,
        workers=workers,
        mariadb=servers_for(demand.mariadb, rate, UTILISATION),
        valkey=servers_for(demand.valkey, rate, UTILISATION),
        busy=rate * held,  # Little's law
        open=workers * pool,
        network=rate * (demand.size + HEADERS) * 8 / 1e9,
    )
