"""A process that works for this one; it imports this module, and so this imports little."""

import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar, TypeVarTuple

from app.servers.process import end_with_parent

MAX_MEMORY = 1 << 30  # bytes of address space: what wants more gets a MemoryError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class ChildProcess:
    """It has an executor of its own: a process that dies breaks all that its executor has."""

    def __init__(self) -> None:
        # Spawned: a fork would have the connections of this process, and locks of its threads.
        self._executor = ProcessPoolExecutor(1, get_context("spawn"), initializer=_begin)
        before = multiprocessing.active_children()
        self._executor.submit(os.getpid)  # starts it
        new = (p for p in multiprocessing.active_children() if p not in before)
        self._process = next(new, None)  # None if it has ended already

    def submit(self, work: Callable[[*Ts], T], *arguments: *Ts) -> Future[T]:
        """Raises BrokenProcessPool if it has died, as does the result if it dies at that work."""
        return self._executor.submit(work, *arguments)

    def kill(self, *, wait: bool = False) -> None:
        """`wait`: until it is gone, which takes some milliseconds."""
        if self._process is not None:
            self._process.kill()
        self._executor.shutdown(wait=wait, cancel_futures=True)


def _begin() -> None:
    end_with_parent()
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid != os.getppid():
        sys.exit("This process was started by one that has ended since")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    if sys.platform == "linux":
        # It has what the event loops leave: one that wakes up does not wait until this is ready to.
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        # Where there is too little memory, the kernel ends this one and not the worker.
        Path("/proc/self/oom_score_adj").write_text("500")
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
