from functools import partial

from prometheus_client import CollectorRegistry, Gauge

from chassis.telemetry.histogram import Histogram

JOB_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60)


class JobMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        # Its `_count` counts the jobs.
        self.job_duration = Histogram(
            "job_duration_seconds",
            "Time of a job; failed: there will be another attempt, dead: there will not",
            ["name", "result"],
            buckets=JOB_BUCKETS,
            registry=registry,
        )
        gauge = partial(Gauge, multiprocess_mode="livemax", registry=registry)
        self.jobs_waiting = gauge("jobs_waiting", "Jobs in the outbox that are not done")
        self.jobs_oldest = gauge("jobs_oldest_seconds", "Age of the oldest of them")
        self.jobs_dead = gauge(
            "jobs_dead", "Jobs that were given up: python -m app jobs shows them"
        )
        self.job_tick = gauge(
            "job_tick_timestamp_seconds",
            "When this worker last ran the periodic job `tick`, which one of all does each minute",
        )
