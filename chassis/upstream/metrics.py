from prometheus_client import CollectorRegistry, Counter, Gauge

from chassis.telemetry.histogram import Histogram

REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class UpstreamMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        # Its `_count` counts the attempts.
        self.upstream_duration = Histogram(
            "upstream_request_duration_seconds",
            "Duration of an attempt, until the response was read or failed",
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
            "Workers with a circuit breaker for a server that is not closed",
            ["server"],
            multiprocess_mode="livesum",
            registry=registry,
        )
