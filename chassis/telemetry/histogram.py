"""A histogram that adds up observations in batches: each alone would cost five times as much."""

import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import prometheus_client
from prometheus_client.samples import Sample

_observed: "set[Histogram]" = set()
_lock = threading.Lock()  # of those who add up; to observe takes none


class Histogram(prometheus_client.Histogram):
    """As prometheus_client's, without exemplars. `add_up` adds what was observed until then."""

    def _metric_init(self) -> None:
        super()._metric_init()
        self._waiting: deque[float] = deque()

    def observe(self, amount: float, exemplar: Any = None) -> None:
        self._waiting.append(amount)
        _observed.add(self)  # after the line above: another thread may add up meanwhile

    def add_up(self) -> None:
        waiting, total, counts = self._waiting, 0.0, [0] * len(self._upper_bounds)
        with _lock:
            while waiting:
                amount = waiting.popleft()
                total += amount
                counts[bisect_left(self._upper_bounds, amount)] += 1
        self._sum.inc(total)
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)

    def _child_samples(self) -> Iterable[Sample]:
        self.add_up()
        return super()._child_samples()


def add_up_all() -> None:
    with suppress(KeyError):  # there is none left
        while True:
            _observed.pop().add_up()
