import time
from collections import OrderedDict

MAX_BUCKETS = 10_000


class FallbackBuckets:
    """Replaces the buckets in Redis while that is unreachable; the least recently used go first.

    The algorithm is that of chassis/limits/rate_limit.py (GCRA).
    """

    def __init__(self) -> None:
        self._full_at: OrderedDict[str, int] = OrderedDict()

    def consume(self, name: str, interval: int, burst: int, cost: int) -> tuple[bool, int]:
        """Whether the bucket had `cost` tokens, and the time until it is full again, µs.

        `interval`: time in which one token is refilled, µs. A negative cost returns tokens.
        """
        now = time.monotonic_ns() // 1000
        full_at = max(self._full_at.get(name, 0), now)
        next_full_at = max(full_at + interval * cost, now)
        if next_full_at - now > interval * burst:
            return False, full_at - now
        self._full_at[name] = next_full_at
        self._full_at.move_to_end(name)
        if len(self._full_at) > MAX_BUCKETS:
            self._full_at.popitem(last=False)
        return True, next_full_at - now
