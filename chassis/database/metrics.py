from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge

from chassis.telemetry.histogram import Histogram

WAIT_BUCKETS = (0.0001, 0.001, 0.01, 0.1, 0.5, 1, 3)
STATEMENT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)


class DatabaseMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        gauge = partial(Gauge, multiprocess_mode="livesum", registry=registry)
        histogram = partial(Histogram, registry=registry)
        pool = ["pool"]
        self.pool_size = gauge("database_pool_size", "Connections that the pools keep", pool)
        self.pool_checked_out = gauge("database_pool_checked_out", "Connections in use", pool)
        self.pool_overflow = gauge(
            "database_pool_overflow", "Connections open above what the pools keep", pool
        )
        # Its `_count` counts the checkouts.
        self.pool_wait = histogram(
            "database_pool_wait_seconds",
            "Time until a connection was had, be it from the pool or new",
            pool,
            buckets=WAIT_BUCKETS,
        )
        self.statement_duration = histogram(
            "database_statement_duration_seconds",
            "Time of a statement or a commit, failed ones included",
            ["operation"],
            buckets=STATEMENT_BUCKETS,
        )
        self.deadlocks = Counter(
            "database_deadlocks_total",
            "Transactions that the database has undone, and which were run again",
            registry=registry,
        )
        self.replica_lag = gauge(
            "database_replica_lag_seconds",
            "The most that the replica may be behind",
            ["replica"],
            multiprocess_mode="livemax",
        )
        self.replica_avoided = gauge(
            "database_replica_avoided",
            "Workers that do not read from the replica, as it is away or lags",
            ["replica"],
        )
