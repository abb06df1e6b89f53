from prometheus_client import CollectorRegistry, Gauge

from chassis.telemetry.histogram import Histogram

JOB_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60)


class ProcessMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        work = Histogram(
            "process_pool_duration_seconds",
            "Duration of work in a child process, without the wait for it",
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
            "Requests that wait for a process or use one",
            multiprocess_mode="livesum",
            registry=registry,
        )
