"""Slots of workers, so that metrics add up over all of them, however often they are replaced.

Each worker counts in files of its own. Named by pid, as usual, they would pile up with every
replacement. Named by slot, a new worker goes on where the one before it stopped.
"""

import os
import tempfile
from collections.abc import Iterable
from itertools import count
from typing import Protocol

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
    values.ValueClass = values.MultiProcessValue(lambda: slot)


def leave(slot: int, directory: str) -> None:
    """In the master, when the worker is gone: its counts stay, what it held does not."""
    mark_process_dead(slot, directory)


def own_slot() -> int:
    return int(os.environ.get(SLOT, 1))


def shared_directory() -> str | None:
    """Where all workers count; None where there is just this process."""
    return os.environ.get(DIRECTORY)
