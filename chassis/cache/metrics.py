from functools import partial

from prometheus_client import CollectorRegistry, Counter


class CacheMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, registry=registry)
        # Children created here export 0 from the start, so `rate()` sees the first event.
        lookups = counter("cache_lookups_total", "Lookups by result", ["result"])
        self.cache_lookups = {
            result: lookups.labels(result)
            for result in ("hit", "stale", "miss", "bypass", "unavailable")
        }
        self.cache_loads = counter("cache_loads_total", "Values loaded, refreshes included")
        self.cache_lock_waits = counter(
            "cache_lock_waits_total", "Polls for a value that another process was loading"
        )
        self.cache_too_large = counter(
            "cache_too_large_total",
            "Values larger than CACHE_MAX_VALUE, which are not stored",
        )
        invalidations = counter(
            "cache_invalidations_total", "Attempts to invalidate tags after a write", ["result"]
        )
        self.cache_invalidations = {
            result: invalidations.labels(result) for result in ("done", "failed")
        }
