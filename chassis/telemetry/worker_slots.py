"""Metrics files by worker slot (docs/decisions/0006-slots.md).

prometheus-client names the files of a worker by its pid, so they accumulate with each replaced
worker. By slot, a new worker continues the counts of the one before it.
"""

import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from prometheus_client import values
from prometheus_client.multiprocess import mark_process_dead

from chassis.telemetry.histogram import add_up_all

MEMORY = "/dev/shm"  # writing to its files never waits for a disk
PREFIX = "slots-of-metrics-"
DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
SLOT = "WORKER_SLOT"


def memory_directory() -> str | None:
    return MEMORY if os.access(MEMORY, os.W_OK) else None


def make_directory() -> str:
    """Make a directory in the master, and remove those of dead services.

    It stays locked while the master or a worker lives, as workers inherit the descriptor.
    """
    parent = Path(memory_directory() or tempfile.gettempdir())
    for left in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # of another user, or being removed
            _remove_unused(left)
    while True:
        path = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
        lock = os.open(path, os.O_RDONLY)  # stays open
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(path):
            return path
        os.close(lock)  # another master has just removed it


def _remove_unused(directory: Path) -> None:
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(lock).st_uid == os.getuid():
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory)
    finally:
        os.close(lock)


def lowest_free(workers: Iterable[Any]) -> int:
    taken = {worker.slot for worker in workers}
    return next(slot for slot in count(1) if slot not in taken)


def occupy(slot: int, directory: str) -> None:
    """Called in a worker, before it makes its metrics."""
    os.environ[DIRECTORY] = directory
    os.environ[SLOT] = str(slot)
    values.ValueClass = buffered(values.MultiProcessValue(lambda: slot))


def buffered(shared_value: Any) -> type:
    """Values that `flush` writes: to write each at once took a tenth of a request's time."""

    class BufferedValue(shared_value):  # type: ignore[misc]
        def inc(self, amount: float) -> None:
            with _lock:
                self._value += amount
                _changed.add(self)

        def flush(self) -> None:
            self._file.write_value(self._key, self._value, 0.0)

    return BufferedValue


def flush() -> None:
    """Write what changed since the last call; a killed worker loses that."""
    add_up_all()
    with _lock:
        changed = [*_changed]
        _changed.clear()
        for value in changed:
            value.flush()


_changed: set[Any] = set()
_lock = threading.Lock()


def leave(slot: int, directory: str) -> None:
    """Called in the master when the worker is gone: clears its live gauges, not its counters."""
    mark_process_dead(slot, directory)


def own_slot() -> int:
    return int(os.environ.get(SLOT, 1))


def shared_directory() -> str | None:
    """None in a process without workers."""
    return os.environ.get(DIRECTORY)
