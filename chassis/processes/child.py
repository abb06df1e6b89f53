"""A child process of the pool. It imports this module, so this module imports little."""

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

from chassis.processes.parent_death import end_with_parent

MAX_MEMORY = 1 << 30  # bytes of address space; beyond it the child gets a MemoryError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class ChildProcess:
    """One process with a ProcessPoolExecutor of its own (docs/decisions/0015).

    An executor cannot end running work, and fails all its work when one of its processes dies.
    With one process each, killing a process ends just the work of that process.
    """

    def __init__(self) -> None:
        # Spawned: a fork would inherit the connections and the held locks of this process.
        self._executor = ProcessPoolExecutor(1, get_context("spawn"), initializer=_begin)
        before = multiprocessing.active_children()
        self._executor.submit(os.getpid)  # starts it
        new = (p for p in multiprocessing.active_children() if p not in before)
        self._process = next(new, None)  # None if it has ended already

    def submit(self, work: Callable[[*Ts], T], *arguments: *Ts) -> Future[T]:
        """Raises BrokenProcessPool if the process is dead, as the future does if it dies later."""
        return self._executor.submit(work, *arguments)

    def kill(self, *, wait: bool = False) -> None:
        """`wait`: until the process has ended, some milliseconds."""
        if self._process is not None:
            self._process.kill()
        self._executor.shutdown(wait=wait, cancel_futures=True)


def _begin() -> None:
    end_with_parent()
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid != os.getppid():
        sys.exit("The parent of this process has ended")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one
    if sys.platform == "linux":
        # Event loops that wake up preempt it at once; it gets the CPU time that they leave.
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        # When memory is short, the kernel ends this process and not the worker.
        Path("/proc/self/oom_score_adj").write_text("500")
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
