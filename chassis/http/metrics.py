from functools import cache

from prometheus_client import CollectorRegistry

from chassis.telemetry.histogram import Histogram

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SIZE_BUCKETS = (256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576)


class HttpMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        # Its `_count` counts the requests.
        self.request_duration = Histogram(
            "http_request_duration_seconds",
            "Time from the arrival of a request to the end of its response",
            ["method", "route", "status"],
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        self.response_size = Histogram(
            "http_response_size_bytes",
            "Size of the body of a response, before a proxy compresses it",
            ["method", "route"],
            buckets=SIZE_BUCKETS,
            registry=registry,
        )
        self._of_route = cache(self._labelled)

    def observe_request(
        self, method: str, route: str, status: int, seconds: float, size: int
    ) -> None:
        """`status` is 0 if no response was sent."""
        if not status:
            return
        method = method if method in METHODS else "other"
        duration, response_size = self._of_route(method, route, status // 100)
        duration.observe(seconds)
        response_size.observe(size)

    def _labelled(self, method: str, route: str, hundreds: int) -> tuple[Histogram, Histogram]:
        duration = self.request_duration.labels(method, route, f"{hundreds}xx")
        return duration, self.response_size.labels(method, route)
