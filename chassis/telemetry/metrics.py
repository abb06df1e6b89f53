"""Metrics in the format of Prometheus (docs/observability.md)."""

import platform
from collections.abc import Callable
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from chassis.telemetry.worker_slots import flush, shared_directory
from chassis.version import VERSION

T = TypeVar("T")


class Metrics:
    """The registry of one worker; `render` returns the sums over all workers.

    Each part of the service declares its metrics in a class that takes the registry:
    `metrics.of(CacheMetrics)` returns those of the cache.
    """

    def __init__(self, version: str = "") -> None:
        """`version`: of the service."""
        self.registry = CollectorRegistry()
        self._parts: dict[Callable[[CollectorRegistry], Any], Any] = {}
        build = Gauge(
            "app_build_info",
            "The running version; always 1",
            ["version", "chassis", "python"],
            multiprocess_mode="livemax",
            registry=self.registry,
        )
        build.labels(version, VERSION, platform.python_version()).set(1)

    def of(self, part: Callable[[CollectorRegistry], T]) -> T:
        declared: T | None = self._parts.get(part)
        if declared is None:
            declared = self._parts[part] = part(self.registry)
        return declared

    def render(self) -> bytes:
        """In Prometheus' text format; it blocks on files.

        Other workers' counts of the last 0.05 s may be missing.
        """
        flush()
        registry = self.registry
        if directory := shared_directory():
            registry = CollectorRegistry()
            MultiProcessCollector(registry, directory)
        return generate_latest(registry)


class ShedMetrics:
    """Shed requests, which several parts count."""

    def __init__(self, registry: CollectorRegistry) -> None:
        shed = Counter(
            "http_requests_shed_total",
            "Requests refused because of overload",
            ["reason"],
            registry=registry,
        )
        # Made now, they start at 0, and the first event is visible as a change.
        reasons = ("in_flight", "working", "database", "bodies")
        self.shed = {reason: shed.labels(reason) for reason in reasons}


class LogMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.log_lines_dropped = Counter(
            "log_lines_dropped_total",
            "Log lines dropped because the reader is too slow",
            registry=registry,
        )
