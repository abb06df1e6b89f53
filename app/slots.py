"""Slots of workers, so that metrics add up over all of them, however often they are replaced.

Each worker counts in files of its own. Named by pid, as usual, they would pile up with every
replacement. Named by slot, a new worker goes on where the one before it stopped.
"""

import os
import tempfile
import threading
from collections.abc import Iterable
from itertools import count
from typing import Any, Protocol

from prometheus_client import values
from prometheus_client.multiprocess import mark_process_dead

MEMORY = "/dev/shm"  # where it exists, writing to a file never waits for a disk

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
SLOT = "WORKER_SLOT"


class Slotted(Protocol):
    slot: int


def memory_directory() -> str | None:
    return MEMORY if os.access(MEMORY, os.W_OK) else None


def make_directory() -> str:
    return tempfile.mkdtemp(prefix="metrics-", dir=memory_directory())


def lowest_free(workers: Iterable[Slotted]) -> int:
    taken = {worker.slot for worker in workers}
    return next(slot for slot in count(1) if slot not in taken)


def occupy(slot: int, directory: str) -> None:
    """In a worker, after the fork and before it makes its metrics."""
    os.environ[DIRECTORY] = directory
    os.environ[SLOT] = str(slot)
    values.ValueClass = buffered(values.MultiProcessValue(lambda: slot))


def buffered(shared_value: Any) -> type:
    """Values that `flush` shows to other processes: each time at once was a tenth of a request."""

    class BufferedValue(shared_value):  # type: ignore[misc]
        def inc(self, amount: float) -> None:
            with _lock:
                self._value += amount
                _changed.add(self)

        def flush(self) -> None:
            self._file.write_value(self._key, self._value, 0.0)

    return BufferedValue


def flush() -> None:
    """What was counted since the last time; a worker that is killed takes that along."""
    with _lock:
        changed = [*_changed]
        _changed.clear()
        for value in changed:
            value.flush()


_changed: set[Any] = set()
_lock = threading.Lock()


def leave(slot: int, directory: str) -> None:
    """In the master, when the worker is gone: its counts stay, what it held does not."""
    mark_process_dead(slot, directory)


def own_slot() -> int:
    return int(os.environ.get(SLOT, 1))


def shared_directory() -> str | None:
    """Where all workers count; None where there is just this process."""
    return os.environ.get(DIRECTORY)
