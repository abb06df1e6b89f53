import random
from math import inf


def backoff(base: float, attempt: int, limit: float = inf) -> float:
    """Wait after the given attempt (from 1), s; with jitter, against simultaneous retries."""
    wait = min(limit, base * 2.0 ** (attempt - 1))
    return wait * random.uniform(0.5, 1.5)  # noqa: S311 - chance, not a secret
