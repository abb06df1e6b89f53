"""Metrics of Python's garbage collector."""

import gc
import time

from chassis.server.metrics import CollectorMetrics


class Collector:
    """Measures pauses between `start` and `stop`; `sample` updates the metrics."""

    def __init__(self, metrics: CollectorMetrics) -> None:
        self._metrics = metrics
        self._pause = 0.0
        self._began = 0.0
        self._shown = gc.get_stats()

    def start(self) -> None:
        gc.callbacks.append(self._watch)

    def stop(self) -> None:
        gc.callbacks.remove(self._watch)

    def _watch(self, phase: str, info: dict[str, int]) -> None:
        # It may run while a lock of the metrics is held, so it must not touch them.
        if phase == "start":
            self._began = time.perf_counter()
        else:
            self._pause += time.perf_counter() - self._began

    def sample(self) -> None:
        metrics, stats = self._metrics, gc.get_stats()
        for generation, (before, now) in enumerate(zip(self._shown, stats, strict=True)):
            for name, counter in metrics.gc_counts.items():
                counter.labels(str(generation)).inc(now[name] - before[name])
        self._shown = stats
        pause, self._pause = self._pause, 0.0
        metrics.gc_pause.inc(pause)
