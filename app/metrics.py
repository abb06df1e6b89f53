"""Every metric of the service: names, units and labels as Prometheus recommends them.

A family belongs here with its labels; who measures it stands where it happens.
"""

import platform

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from app.slots import own_slot, shared_directory
from app.version import VERSION

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SIZE_BUCKETS = (256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576)
WAIT_BUCKETS = (0.0001, 0.001, 0.01, 0.1, 0.5, 1, 3)
STATEMENT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
COMMAND_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.25)
LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


class Metrics:
    """The metrics of one worker; `render` gives the sum over all of them."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        # Its `_count` counts the requests.
        self.request_duration = Histogram(
            "http_request_duration_seconds",
            "Time from a request's arrival to the end of its response",
            ["method", "route", "status"],
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        self.response_size = Histogram(
            "http_response_size_bytes",
            "Size of a response's body, before the proxy compresses it",
            ["method", "route"],
            buckets=SIZE_BUCKETS,
            registry=registry,
        )
        self.requests_in_flight = Gauge(
            "http_requests_in_flight",
            "Requests that are being answered",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.pool_size = Gauge(
            "database_pool_size",
            "Connections that the pools keep",
            ["pool"],
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.pool_checked_out = Gauge(
            "database_pool_checked_out",
            "Connections in use",
            ["pool"],
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.pool_overflow = Gauge(
            "database_pool_overflow",
            "Connections open above what the pools keep",
            ["pool"],
            multiprocess_mode="livesum",
            registry=registry,
        )
        # Its `_count` counts the checkouts.
        self.pool_wait = Histogram(
            "database_pool_wait_seconds",
            "Time until a connection was had, be it from the pool or new",
            ["pool"],
            buckets=WAIT_BUCKETS,
            registry=registry,
        )
        self.statement_duration = Histogram(
            "database_statement_duration_seconds",
            "Time of a statement or a commit, failed ones included",
            ["operation"],
            buckets=STATEMENT_BUCKETS,
            registry=registry,
        )
        self.redis_duration = Histogram(
            "redis_command_duration_seconds",
            "Time of a command, failed ones included",
            ["command"],
            buckets=COMMAND_BUCKETS,
            registry=registry,
        )
        self.redis_errors = Counter(
            "redis_command_errors_total",
            "Commands that failed",
            ["command"],
            registry=registry,
        )
        slot = str(own_slot())
        self.loop_lag = Histogram(
            "event_loop_lag_seconds",
            "How late the event loop came to a timer",
            ["worker"],
            buckets=LAG_BUCKETS,
            registry=registry,
        ).labels(slot)
        self.worker_memory = Gauge(
            "worker_resident_memory_bytes",
            "Resident memory of a worker, what it shares with others included",
            ["worker"],
            multiprocess_mode="livesum",
            registry=registry,
        ).labels(slot)
        self.worker_boots = Counter("worker_boots_total", "Workers that came up", registry=registry)
        self.worker_recycles = Counter(
            "worker_recycles_total",
            "Workers that made room for a new one after WEB_MAX_REQUESTS",
            registry=registry,
        )
        self.log_lines_dropped = Counter(
            "log_lines_dropped_total",
            "Log lines that nobody read in time",
            registry=registry,
        )
        build = Gauge(
            "app_build_info",
            "The version that runs; always 1",
            ["version", "python"],
            multiprocess_mode="livemax",
            registry=registry,
        )
        build.labels(VERSION, platform.python_version()).set(1)
        self._requests: dict[tuple[str, str, int], tuple[Histogram, Histogram]] = {}

    def observe_request(
        self, method: str, route: str, status: int, seconds: float, size: int
    ) -> None:
        """Count an answer; `status` is 0 where the client got none."""
        if not status:
            return
        # Looking a child up by its labels costs more than observing.
        key = (method if method in METHODS else "other", route, status // 100)
        children = self._requests.get(key)
        if children is None:
            children = self._requests[key] = (
                self.request_duration.labels(key[0], route, f"{key[2]}xx"),
                self.response_size.labels(key[0], route),
            )
        children[0].observe(seconds)
        children[1].observe(size)

    def render(self) -> bytes:
        """In Prometheus' text format. It reads files: not for the event loop."""
        registry = self.registry
        if directory := shared_directory():
            registry = CollectorRegistry()
            MultiProcessCollector(registry, directory)
        return generate_latest(registry)
