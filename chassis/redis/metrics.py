from functools import cache, partial

from prometheus_client import CollectorRegistry, Counter

from chassis.telemetry.histogram import Histogram

COMMAND_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.25)


class RedisMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.redis_duration = Histogram(
            "redis_command_duration_seconds",
            "Duration of a command, failed ones included",
            ["command"],
            buckets=COMMAND_BUCKETS,
            registry=registry,
        )
        counter = partial(Counter, registry=registry)
        self.redis_errors = counter(
            "redis_command_errors_total", "Commands that failed", ["command"]
        )
        refused = counter(
            "redis_refused_writes_total",
            "Writes that a server refused because it is full and evicts nothing",
            ["server"],
        )
        self.redis_refused_writes = {
            server: refused.labels(server) for server in ("redis", "queue")
        }
        self._of_command = cache(self._labelled)

    def observe_redis(self, command: str, seconds: float) -> None:
        self._of_command(command)[0].observe(seconds)

    def redis_error(self, command: str) -> None:
        self._of_command(command)[1].inc()

    def _labelled(self, command: str) -> tuple[Histogram, Counter]:
        return self.redis_duration.labels(command), self.redis_errors.labels(command)
