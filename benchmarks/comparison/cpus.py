"""One CPU for the worker that is measured, the others for its servers and clients. Linux only."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

USABLE = sorted(os.sched_getaffinity(0))
ALL = set(USABLE)
WORKER = set(USABLE[:1])
OTHERS = set(USABLE[1:]) or WORKER


@contextmanager
def pinned_to(cpus: set[int]) -> Iterator[None]:
    """This thread, and for good the processes that it starts meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
