"""A pool of child processes for CPU-bound work that may hang or crash."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from math import ceil, inf
from typing import NoReturn, TypeVar, TypeVarTuple

from chassis.errors import Overloaded, Unavailable
from chassis.processes.child import ChildProcess
from chassis.processes.metrics import ProcessMetrics
from chassis.processes.settings import ProcessesSettings
from chassis.request_context import current_request
from chassis.telemetry.metrics import Metrics

WEIGHT = 0.2  # of the latest duration in the moving average

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

log = logging.getLogger("app.processes")


class ProcessPool:
    """Up to PROCESSES_COUNT child processes (docs/concurrency.md, docs/decisions/0015).

    `place` reserves one of the places in the queue, before a request spends memory or disk; `run`
    then waits for a process. A process starts when it is first needed. It is killed when its work
    exceeds PROCESSES_TIMEOUT or the request ends; a crash fails only the work of that process.
    """

    def __init__(self, settings: ProcessesSettings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics.of(ProcessMetrics)
        self._available = asyncio.Semaphore(settings.count)
        self._idle: list[ChildProcess] = []
        self._places = 0
        self._average = 0.0  # s; moving average of durations

    @contextmanager
    def place(self) -> Iterator[None]:
        """Raises Overloaded if all places are taken, or the expected wait is too long."""
        if self._places >= self.settings.max_waiting or self._wait > self.settings.max_wait:
            self._refuse()
        self._places += 1
        self.metrics.pool_places.inc()
        try:
            yield
        finally:
            self._places -= 1
            self.metrics.pool_places.dec()

    async def run(self, work: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Call `work` in a process, within a `place`. Its exceptions are raised here.

        Raises Unavailable if the process crashes or exceeds the timeout. The process imports the
        module of `work`, which should import little.
        """
        had_to_wait = self._available.locked()
        async with self._available:
            request = current_request.get()
            left = inf if request is None else request.deadline - time.perf_counter()
            # It would be killed half done, and its process with it. Without a queue it may try:
            # else an average that is too long would never become shorter.
            if had_to_wait and left < self._average:
                self._refuse()
            start = time.perf_counter()
            result = "cancelled"
            try:
                value = await self._run(work, *arguments)
                result = "done"
            except BrokenProcessPool:
                result = "crashed"
                log.warning("A process crashed in %s", work.__name__)
                raise Unavailable("The process for this request crashed; try again") from None
            except TimeoutError:
                result = "timeout"
                log.warning("%s took longer than %g s", work.__name__, self.settings.timeout)
                raise Unavailable("Processing this takes too long") from None
            except Exception:
                result = "failed"
                raise
            finally:
                seconds = time.perf_counter() - start
                self._average += WEIGHT * (seconds - self._average)
                self.metrics.pool_duration[result].observe(seconds)
        return value

    async def _run(self, work: Callable[[*Ts], T], *arguments: *Ts) -> T:
        child, future = self._submit(work, *arguments)
        is_idle = True
        try:
            async with asyncio.timeout(self.settings.timeout):
                return await asyncio.wrap_future(future)
        except (BrokenProcessPool, TimeoutError, asyncio.CancelledError):
            is_idle = False
            raise
        finally:
            if is_idle:
                self._idle.append(child)
            else:
                child.kill()

    def _submit(self, work: Callable[[*Ts], T], *arguments: *Ts) -> tuple[ChildProcess, Future[T]]:
        while self._idle:
            child = self._idle.pop()
            try:
                return child, child.submit(work, *arguments)
            except BrokenProcessPool:
                child.kill()  # it died while idle
        try:
            child = ChildProcess()
        except OSError as error:
            log.warning("No process can be started: %s", error)
            raise BrokenProcessPool from error
        return child, child.submit(work, *arguments)

    @property
    def _wait(self) -> float:
        """Expected wait of the next request, s."""
        return self._places * self._average / self.settings.count

    def _refuse(self) -> NoReturn:
        self.metrics.pool_duration["refused"].observe(0)
        raise Overloaded("Too many requests wait for processing", ceil(self._wait) or 1)

    def close(self) -> None:
        for child in self._idle:
            child.kill(wait=True)
