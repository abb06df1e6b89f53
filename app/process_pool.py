"""Work for a CPU, in processes of their own: it leaves the event loop alone, and may crash."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import asynccontextmanager, contextmanager
from math import ceil, inf
from typing import NoReturn, TypeVar, TypeVarTuple

from app.child_process import ChildProcess
from app.errors import Overloaded, Unavailable
from app.metrics import Metrics
from app.request_context import current_request
from app.settings import ProcessesSettings

WEIGHT = 0.2  # of the newest time in the average

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

log = logging.getLogger("app.processes")


class Place:
    """One of those who may wait for a process."""

    def __init__(self, pool: "ProcessPool") -> None:
        self._pool = pool

    async def run(self, work: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """What `work` gives or raises; Unavailable where its process died or its time was up.

        Processes import the module of `work`: it should import little.
        """
        return await self._pool.run(work, *arguments)


class ProcessPool:
    """So many processes, each started when it is first needed, and again when it has died."""

    def __init__(self, settings: ProcessesSettings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self._turns = asyncio.Semaphore(settings.count)
        self._idle: list[ChildProcess] = []
        self._taken = 0
        self._usual = 0.0  # s; what a piece of work has taken on average

    @contextmanager
    def place(self) -> Iterator[Place]:
        """Take one before anything costly happens. Raises Overloaded where there is none, or where
        those who wait already will take too long.
        """
        if self._taken >= self.settings.max_waiting or self._wait > self.settings.max_wait:
            self._refuse()
        self._taken += 1
        self.metrics.pool_places.inc()
        try:
            yield Place(self)
        finally:
            self._taken -= 1
            self.metrics.pool_places.dec()

    async def run(self, work: Callable[[*Ts], T], *arguments: *Ts) -> T:
        had_to_wait = self._turns.locked()
        async with self._turns:
            request = current_request.get()
            left = inf if request is None else request.deadline - time.perf_counter()
            # It would be ended half done, and its process with it. Who comes first is let try, as
            # else an average that was too long would never become shorter.
            if had_to_wait and left < self._usual:
                self._refuse()
            start = time.perf_counter()
            result = "cancelled"
            try:
                value = await self._run(work, *arguments)
                result = "done"
            except BrokenProcessPool:
                result = "crashed"
                log.warning("A process crashed in %s", work.__name__)
                raise Unavailable("What was to process this has crashed; try again") from None
            except TimeoutError:
                result = "timeout"
                log.warning("%s took longer than %g s", work.__name__, self.settings.timeout)
                raise Unavailable("It takes too long to process this") from None
            except Exception:
                result = "failed"
                raise
            finally:
                seconds = time.perf_counter() - start
                self._usual += WEIGHT * (seconds - self._usual)
                self._observe(result, seconds)
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
                child.kill()  # nobody waits for what it does

    def _submit(self, work: Callable[[*Ts], T], *arguments: *Ts) -> tuple[ChildProcess, Future[T]]:
        while self._idle:
            child = self._idle.pop()
            try:
                return child, child.submit(work, *arguments)
            except BrokenProcessPool:
                child.kill()  # it died while it had nothing to do
        try:
            child = ChildProcess()
        except OSError as error:
            log.warning("No process can be started: %s", error)
            raise BrokenProcessPool from error
        return child, child.submit(work, *arguments)

    @property
    def _wait(self) -> float:
        """Of who would come now, s."""
        return self._taken * self._usual / self.settings.count

    def _refuse(self) -> NoReturn:
        self._observe("refused", 0)
        # When it is the turn of who came now, there is room.
        raise Overloaded("Too much is waiting to be processed right now", ceil(self._wait) or 1)

    def _observe(self, result: str, seconds: float) -> None:
        self.metrics.pool_duration[result].observe(seconds)

    def close(self) -> None:
        for child in self._idle:
            child.kill(wait=True)


@asynccontextmanager
async def open_process_pool(
    settings: ProcessesSettings, metrics: Metrics
) -> AsyncIterator[ProcessPool]:
    pool = ProcessPool(settings, metrics)
    try:
        yield pool
    finally:
        await asyncio.to_thread(pool.close)
