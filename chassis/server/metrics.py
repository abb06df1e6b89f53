from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge

from chassis.telemetry.histogram import Histogram
from chassis.telemetry.worker_slots import own_slot

LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


class WorkerMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        gauge = partial(Gauge, multiprocess_mode="livesum", registry=registry)
        counter = partial(Counter, registry=registry)
        self.connections = gauge("http_connections", "Open client connections")
        self.connections_refused = counter(
            "http_connections_refused_total",
            "Connections closed at once, above WEB_MAX_CONNECTIONS",
        )
        self.requests_receiving = gauge(
            "http_requests_receiving", "Requests in flight that are still sending their body"
        )
        self.requests_in_flight = gauge("http_requests_in_flight", "Requests in flight")
        self.requests_working = gauge(
            "http_requests_working", "Requests in flight that are not served from the cache"
        )
        self.requests_working_limit = gauge(
            "http_requests_working_limit", "Current limit of http_requests_working"
        )
        slot = str(own_slot())
        self.loop_lag = Histogram(
            "event_loop_lag_seconds",
            "Delay of a timer in the event loop",
            ["worker"],
            buckets=LAG_BUCKETS,
            registry=registry,
        ).labels(slot)
        self.worker_memory = gauge(
            "worker_resident_memory_bytes",
            "Resident memory of a worker, shared memory included",
            ["worker"],
        ).labels(slot)
        container = partial(Gauge, multiprocess_mode="livemax", registry=registry)
        self.container_memory = container(
            "container_memory_bytes", "Memory of the container, without droppable file cache"
        )
        self.container_memory_limit = container(
            "container_memory_limit_bytes", "Memory limit of the container, 0 without one"
        )
        self.worker_boots = counter("worker_boots_total", "Workers that started")
        self.worker_recycles = counter(
            "worker_recycles_total", "Workers replaced after WEB_MAX_REQUESTS"
        )


class CollectorMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, labelnames=["generation"], registry=registry)
        self.gc_counts = {  # by the names of gc.get_stats()
            "collections": counter("python_gc_collections_total", "Runs of the garbage collector"),
            "collected": counter("python_gc_objects_collected_total", "Objects that it freed"),
            "uncollectable": counter(
                "python_gc_objects_uncollectable_total", "Objects that it could not free"
            ),
        }
        self.gc_pause = counter(
            "python_gc_pause_seconds_total", "Time in which it stopped the worker", labelnames=()
        )
