"""Every metric of the service: names, units and labels as Prometheus recommends them.

A family belongs here with its labels; who measures it stands where it happens.
"""

import platform

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from app.slots import flush, own_slot, shared_directory
from app.version import VERSION

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SIZE_BUCKETS = (256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576)
WAIT_BUCKETS = (0.0001, 0.001, 0.01, 0.1, 0.5, 1, 3)
STATEMENT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
COMMAND_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.25)
JOB_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60)
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
        self.requests_working = Gauge(
            "http_requests_working",
            "Of them, those that no cache answered",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.requests_working_limit = Gauge(
            "http_requests_working_limit",
            "How many of those the workers take on right now",
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
        self.deadlocks = Counter(
            "database_deadlocks_total",
            "Transactions that the database has undone, and which were run again",
            registry=registry,
        )
        self.replica_lag = Gauge(
            "database_replica_lag_seconds",
            "The most that the replica may be behind; 0 without one",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.replica_avoided = Gauge(
            "database_replica_avoided",
            "Workers that read from the primary, as the replica is away or lags",
            multiprocess_mode="livesum",
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
        # Children that are made now are there from 0 on: the first event is a change.
        lookups = Counter(
            "cache_lookups_total",
            "Questions to the cache by what came of them",
            ["result"],
            registry=registry,
        )
        self.cache_lookups = {
            result: lookups.labels(result)
            for result in ("hit", "stale", "miss", "bypass", "unavailable")
        }
        self.cache_loads = Counter(
            "cache_loads_total",
            "Values loaded for want of a fresh one, those ahead of their time included",
            registry=registry,
        )
        self.cache_lock_waits = Counter(
            "cache_lock_waits_total",
            "Looks for what another process was loading",
            registry=registry,
        )
        self.cache_too_large = Counter(
            "cache_too_large_total",
            "Values larger than CACHE_MAX_VALUE, which are not kept",
            registry=registry,
        )
        invalidations = Counter(
            "cache_invalidations_total",
            "Attempts to invalidate what a write has changed",
            ["result"],
            registry=registry,
        )
        self.cache_invalidations = {
            result: invalidations.labels(result) for result in ("done", "failed")
        }
        self.decisions = Counter(
            "rate_limit_decisions_total",
            "Requests allowed and refused, by Redis or, without it, by a worker",
            ["policy", "decision", "by"],
            registry=registry,
        )
        shed = Counter(
            "http_requests_shed_total",
            "Requests refused for what is busy: the worker as a whole, its work, its connections",
            ["reason"],
            registry=registry,
        )
        self.shed = {reason: shed.labels(reason) for reason in ("in_flight", "working", "database")}
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
        # Its `_count` counts the attempts.
        self.upstream_duration = Histogram(
            "upstream_request_duration_seconds",
            "Time until another service began to answer, or did not",
            ["server", "result"],
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        self.upstream_retries = Counter(
            "upstream_retries_total",
            "Attempts beyond the first",
            ["server"],
            registry=registry,
        )
        self.upstream_open = Gauge(
            "upstream_circuit_open",
            "Workers that leave a server alone, as it has failed again and again",
            ["server"],
            multiprocess_mode="livesum",
            registry=registry,
        )
        # Its `_count` counts the pieces of work.
        work = Histogram(
            "process_pool_duration_seconds",
            "Time of work in a process of its own, from when it had one",
            ["result"],
            buckets=JOB_BUCKETS,
            registry=registry,
        )
        self.pool_duration = {
            result: work.labels(result)
            for result in ("done", "failed", "crashed", "timeout", "cancelled", "refused")
        }
        self.pool_places = Gauge(
            "process_pool_places",
            "Requests that wait for a process or have one",
            multiprocess_mode="livesum",
            registry=registry,
        )
        # Its `_count` counts the jobs.
        self.job_duration = Histogram(
            "job_duration_seconds",
            "Time of a job; failed: there will be another attempt, dead: there will not",
            ["name", "result"],
            buckets=JOB_BUCKETS,
            registry=registry,
        )
        self.jobs_waiting = Gauge(
            "jobs_waiting",
            "Jobs in the outbox that are not done",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.jobs_oldest = Gauge(
            "jobs_oldest_seconds",
            "Age of the oldest of them",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.jobs_dead = Gauge(
            "jobs_dead",
            "Jobs that were given up: python -m app jobs shows them",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.job_tick = Gauge(
            "job_tick_timestamp_seconds",
            "When the scheduler's last tick came to this worker",
            multiprocess_mode="livemax",
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
        # Looking a child up by its labels costs more than observing.
        self._requests: dict[tuple[str, str, int], tuple[Histogram, Histogram]] = {}
        self._redis: dict[str, tuple[Histogram, Counter]] = {}
        self._decisions: dict[tuple[str, str, str], Counter] = {}

    def observe_request(
        self, method: str, route: str, status: int, seconds: float, size: int
    ) -> None:
        """Count an answer; `status` is 0 where the client got none."""
        if not status:
            return
        key = (method if method in METHODS else "other", route, status // 100)
        children = self._requests.get(key)
        if children is None:
            children = self._requests[key] = (
                self.request_duration.labels(key[0], route, f"{key[2]}xx"),
                self.response_size.labels(key[0], route),
            )
        children[0].observe(seconds)
        children[1].observe(size)

    def observe_redis(self, command: str, seconds: float) -> None:
        self._of_command(command)[0].observe(seconds)

    def redis_error(self, command: str) -> None:
        self._of_command(command)[1].inc()

    def _of_command(self, command: str) -> tuple[Histogram, Counter]:
        children = self._redis.get(command)
        if children is None:
            children = self._redis[command] = (
                self.redis_duration.labels(command),
                self.redis_errors.labels(command),
            )
        return children

    def count_decision(self, policy: str, decision: str, by: str) -> None:
        labels = (policy, decision, by)
        child = self._decisions.get(labels)
        if child is None:
            child = self._decisions[labels] = self.decisions.labels(*labels)
        child.inc()

    def render(self) -> bytes:
        """In Prometheus' text format. It reads files: not for the event loop.

        What other workers have counted in the last twentieth of a second may be missing.
        """
        flush()
        registry = self.registry
        if directory := shared_directory():
            registry = CollectorRegistry()
            MultiProcessCollector(registry, directory)
        return generate_latest(registry)
