from functools import cache

from prometheus_client import CollectorRegistry, Counter


class LimitMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        decisions = Counter(
            "rate_limit_decisions_total",
            "Requests allowed and refused, by Redis or by a worker in its place",
            ["policy", "decision", "by"],
            registry=registry,
        )
        self.decisions = cache(decisions.labels)  # which takes a lock for each call
