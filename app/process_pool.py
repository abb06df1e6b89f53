"""Work for a CPU, in processes of their own: it leaves the event loop alone, and may crash."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import asynccontextmanager, contextmanager
from typing import Any, ParamSpec, TypeVar

from app.child_process import ChildProcess
from app.errors import Overloaded, Unavailable
from app.metrics import Metrics
from app.settings import ProcessesSettings

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("app.processes")


class Place:
    """One of those who may wait for a process; good for one piece of work."""

    def __init__(self, pool: "ProcessPool") -> None:
        self._pool = pool

    async def run(self, work: Callable[P, T], *arguments: P.args, **_: P.kwargs) -> T:
        """What `work` gives or raises; Unavailable where its process died or its time was up.

        Children import the module of `work`, and nothing else of ours: it should import little.
        """
        return await self._pool.run(work, arguments)


class ProcessPool:
    """So many processes, each started when it is first needed, and again when it has died."""

    def __init__(self, settings: ProcessesSettings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self._turns = asyncio.Semaphore(settings.count)
        self._idle: list[ChildProcess] = []
        self._taken = 0

    @contextmanager
    def place(self) -> Iterator[Place]:
        """Take one before anything costly happens: raises Overloaded where there is none."""
        if self._taken >= self.settings.max_waiting:
            self._observe("refused", 0)
            raise Overloaded("Too much is waiting to be processed right now")
        self._taken += 1
        self.metrics.pool_places.inc()
        try:
            yield Place(self)
        finally:
            self._taken -= 1
            self.metrics.pool_places.dec()

    async def run(self, work: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        async with self._turns:
            start = time.perf_counter()
            child, future = self._submit(work, arguments)
            result = "cancelled"
            try:
                async with asyncio.timeout(self.settings.timeout):
                    value = await asyncio.wrap_future(future)
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
                self._observe(result, time.perf_counter() - start)
                if result in ("done", "failed"):
                    self._idle.append(child)
                else:
                    child.kill()  # nobody waits for what it does
        return value

    def _submit(
        self, work: Callable[..., T], arguments: tuple[Any, ...]
    ) -> tuple[ChildProcess, Future[T]]:
        while self._idle:
            child = self._idle.pop()
            try:
                return child, child.submit(work, arguments)
            except BrokenProcessPool:
                child.kill()  # it died while it had nothing to do
        child = ChildProcess()
        return child, child.submit(work, arguments)

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
