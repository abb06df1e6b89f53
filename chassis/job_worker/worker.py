"""What a job worker does: claim jobs, run them, and run the periodic jobs."""

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from chassis.database.engines import reason_of
from chassis.errors import AppError
from chassis.job_worker.registry import TICK, JobContext, PeriodicJob, Registry
from chassis.jobs.metrics import JobMetrics
from chassis.jobs.store import Claimed, JobStore
from chassis.request_context import RequestContext, current_request
from chassis.tasks.background import spawn

POLL = 1  # s; between claims when nothing wakes this worker
PERIODIC_POLL = 5  # s; between checks whether a periodic job is due
BACKLOG_INTERVAL = 15  # s
DATABASE_TIMEOUT = 10  # s

# AppError: Overloaded, of an exhausted pool; OSError: includes TimeoutError.
DATABASE_ERRORS = (SQLAlchemyError, AppError, OSError)

log = logging.getLogger("app.jobs")


class JobWorker:
    """Runs jobs of the outbox and periodic jobs, at most `JOBS_CONCURRENCY` in total.

    It claims as many jobs as it has free slots: when `wake` is called, each second, and whenever
    a slot becomes free while there may be more jobs. A job is run at least once: a worker can die
    between the work and the deletion of the row. A periodic job is run by the worker that sets its
    lock in the Redis server of `JOBS_URL`. The lock expires when the next run is due, and a run
    that has not ended by then is cut off. Without Redis no periodic job starts. See docs/jobs.md.
    """

    def __init__(self, context: JobContext, registry: Registry) -> None:
        resources = context.resources
        self.context = context
        self.registry = registry
        self.periodic = {**TICK, **registry.periodic}
        self.settings = resources["settings"].jobs
        self.namespace = resources["settings"].cache.namespace
        self.locks = resources["outbox"].shared
        self.store = JobStore(resources["sessions"], self.settings)
        self.metrics = resources["metrics"].of(JobMetrics)
        self.error_reports = resources["error_reports"]
        self._running: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._stopping = False
        self._may_have_more = False  # the last claim has filled all slots
        self._is_database_down = False
        self._next_periodic_check = 0.0

    def wake(self) -> None:
        self._wake.set()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Run until `stop`; then wait JOBS_GRACEFUL_TIMEOUT for jobs and hand back the rest."""
        try:
            while not self._stopping:
                self._wake.clear()
                await self._start_periodic_jobs()
                await self._start_jobs()
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL):
                        await self._wake.wait()
            if self._running:
                await asyncio.wait(self._running, timeout=self.settings.graceful_timeout)
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _start_jobs(self) -> None:
        free = self._free_slots
        # Set before the claim, and MARGIN shorter than the lease: the job ends before that does.
        ends_at = asyncio.get_running_loop().time() + self.settings.timeout
        claimed: list[Claimed] = []
        try:
            if free:
                async with asyncio.timeout(DATABASE_TIMEOUT):
                    claimed = await self.store.claim(free)
                self._is_database_down = False
        except DATABASE_ERRORS as error:
            if not self._is_database_down:
                self._is_database_down = True
                log.warning("The database is unreachable: %s", reason_of(error))
            await asyncio.sleep(POLL)
        self._may_have_more = len(claimed) == free
        for each in claimed:
            self._spawn(self._run_job(each, ends_at))

    async def _start_periodic_jobs(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._next_periodic_check:
            return
        for name, job in self.periodic.items():
            if not self._free_slots:
                return
            ends_at = loop.time() + job.every
            if await self._lock(name, job):
                self._spawn(self._run_periodic(name, job, ends_at))
        self._next_periodic_check = loop.time() + PERIODIC_POLL

    async def _lock(self, name: str, job: PeriodicJob) -> bool:
        """Whether this worker has set the lock, which expires after the interval."""
        key = f"{self.namespace}:periodic:{name}"
        try:
            return await self.locks.call("SET", key, b"", "NX", "PX", job.every * 1000) is not None
        except RedisError:
            return False  # the shared connection logs that Redis is unreachable

    @property
    def _free_slots(self) -> int:
        return self.settings.concurrency - len(self._running)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        spawn(self._running, work).add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        if self._may_have_more:
            self._wake.set()

    async def _run_periodic(self, name: str, job: PeriodicJob, ends_at: float) -> None:
        with self._timed(name) as outcome:
            try:
                async with asyncio.timeout_at(ends_at):
                    await job.run(self.context)
            except Exception as error:
                outcome.append("failed")
                log.warning("%s failed: %r; the next one is in %d s", name, error, job.every)
                self.error_reports.send(error, f"job {name}")
            else:
                outcome.append("done")

    async def _run_job(self, claimed: Claimed, ends_at: float) -> None:
        current_request.set(RequestContext(claimed.request_id or claimed.key, None, {}))
        try:
            with self._timed(claimed.job) as outcome:
                await self._attempt(claimed, ends_at, outcome)
        except DATABASE_ERRORS as error:
            # Nothing is lost: the row is due again when its lease has ended.
            log.warning("The database is unreachable: %s", reason_of(error))

    async def _attempt(self, claimed: Claimed, ends_at: float, outcome: list[str]) -> None:
        extra = {"job": claimed.job, "key": claimed.key, "attempt": claimed.attempt}
        try:
            async with asyncio.timeout_at(ends_at) as timer:
                await self.registry.run_job(self.context, claimed)
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            # By `run`, as the worker stops; a CancelledError of the job's own is a failure.
            if isinstance(error, asyncio.CancelledError) and task and task.cancelling():
                outcome.append("handed_back")
                async with asyncio.timeout(DATABASE_TIMEOUT):
                    await self.store.hand_back(claimed)
                log.info("%s is handed back, as this worker stops", claimed.job, extra=extra)
                return
            is_last = claimed.is_last_attempt
            outcome.append("dead" if is_last else "failed")
            end = "that was the last attempt" if is_last else "there will be another attempt"
            log.warning("%s failed: %r; %s", claimed.job, error, end, extra=extra)
            self.error_reports.send(error, f"job {claimed.job}", attempt=claimed.attempt)
            async with asyncio.timeout(DATABASE_TIMEOUT):
                late = f"not done within JOBS_TIMEOUT ({self.settings.timeout:g} s)"
                reason = late if timer.expired() else str(error)
                await self.store.fail(claimed, f"{type(error).__name__}: {reason}")
        else:
            async with asyncio.timeout(DATABASE_TIMEOUT):
                await self.store.finish(claimed)
            outcome.append("done")
            log.info("%s done", claimed.job, extra=extra)

    @contextmanager
    def _timed(self, name: str) -> Iterator[list[str]]:
        """The block appends its result."""
        start = time.perf_counter()
        outcome: list[str] = []
        try:
            yield outcome
        finally:
            result = outcome[0] if outcome else "unfinished"
            self.metrics.job_duration.labels(name, result).observe(time.perf_counter() - start)

    async def export_backlog(self) -> None:
        """Set the gauges of the backlog periodically."""
        while True:
            try:
                async with asyncio.timeout(DATABASE_TIMEOUT):
                    backlog = await self.store.backlog()
            except DATABASE_ERRORS as error:
                log.warning("The backlog cannot be counted: %s", reason_of(error))
            else:
                self.metrics.jobs_waiting.set(backlog.waiting)
                self.metrics.jobs_oldest.set(backlog.oldest)
                self.metrics.jobs_dead.set(backlog.dead)
            await asyncio.sleep(BACKLOG_INTERVAL)
