"""`python -m app work`: a process that does jobs until it is told to stop."""

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any

from prometheus_client import start_http_server
from sqlalchemy.exc import SQLAlchemyError
from taskiq.receiver import Receiver

from app.background import alongside, beat
from app.database import Sessions
from app.errors import AppError
from app.job_queue import DELIVER, QUEUE_ERRORS, REPEAT
from app.jobs import REPEATED, Tools, do
from app.mail import make_mailer
from app.metrics import Metrics
from app.request_context import RequestContext, current_request
from app.resources import open_resources
from app.scheduler import run_scheduler
from app.schema_revision import BrokenMigrations, SchemaState
from app.services.jobs import Claimed, JobService
from app.settings import Settings, settings_warnings

SAMPLE = 15  # s; how often the outbox is looked at
AGAIN = 1  # s; after which a server that is away is asked again
DATABASE_TIMEOUT = 10  # s; a server that says nothing must not take hold of this worker

log = logging.getLogger("app.jobs")


class JobWorker:
    """Does what the messages of the queue say; what is under way it knows, to end it at a stop."""

    def __init__(self, tools: Tools, settings: Settings) -> None:
        self.tools = tools
        self.jobs = tools.jobs
        self.settings = settings.jobs
        self.metrics = tools.resources["metrics"]
        # Over all receivers: when the queue comes back, jobs of before may still be under way.
        self._hands = asyncio.Semaphore(settings.jobs.concurrency)
        self._running: set[asyncio.Task[Any]] = set()
        self._repeated_at: dict[str, float] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; then running jobs have a while, and what is left is handed back."""
        broker = self.tools.queue.broker
        # taskiq looks at the annotations of plain functions.
        broker.register_task(self._tracked(self.deliver), task_name=DELIVER)
        broker.register_task(self._tracked(self.repeat), task_name=REPEAT)
        grace = self.settings.graceful_timeout
        try:
            while not stop.is_set():
                receiver = Receiver(
                    broker,
                    validate_params=False,
                    max_async_tasks=self.settings.concurrency,
                    wait_tasks_timeout=0.01,  # ours is below, and knows of all
                )
                try:
                    await receiver.listen(stop)
                except* QUEUE_ERRORS as error:
                    log.warning("The queue is away: %s", error.exceptions[0])
                    await _wait(stop, AGAIN)
            if self._running:
                await asyncio.wait(self._running, timeout=grace)
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def deliver(self, entry_id: int, attempts: int) -> None:
        try:
            # The lease begins in the database, at the latest after this moment and that limit.
            ends_at = asyncio.get_running_loop().time() + self.settings.timeout
            async with asyncio.timeout(DATABASE_TIMEOUT):
                claimed = await self.jobs.claim(entry_id, attempts)
            if claimed is not None:
                await self._do(claimed, ends_at)
        except (SQLAlchemyError, AppError, OSError) as error:
            # Nothing is lost: the row is swept when its time has come. Who waits here takes no
            # other message, for which the database would be away as well.
            log.warning("The database is away: %s", getattr(error, "orig", error) or "too late")
            await asyncio.sleep(AGAIN)

    async def repeat(self, name: str) -> None:
        """A message that has waited finds that the work was done since."""
        repeated = REPEATED.get(name)
        if repeated is None or time.monotonic() < self._repeated_at.get(name, 0):
            return
        self._repeated_at[name] = time.monotonic() + repeated.every / 2
        with self._timed(name) as outcome:
            try:
                async with asyncio.timeout(repeated.timeout):
                    await repeated.work(self.tools)
            except Exception as error:
                outcome.append("failed")
                log.warning("%s failed: %r; the next one is in %d s", name, error, repeated.every)
            else:
                outcome.append("done")

    async def _do(self, claimed: Claimed, ends_at: float) -> None:
        current_request.set(RequestContext(claimed.request_id or claimed.key, None, {}))
        extra = {"job": claimed.job, "key": claimed.key, "attempt": claimed.attempt}
        with self._timed(claimed.job) as outcome:
            try:
                async with asyncio.timeout_at(ends_at):
                    await do(self.tools, claimed)
            except asyncio.CancelledError:
                outcome.append("handed_back")
                async with asyncio.timeout(DATABASE_TIMEOUT):
                    await self.jobs.hand_back(claimed)
                log.info("%s is handed back, as this worker stops", claimed.job, extra=extra)
            except Exception as error:
                again = claimed.attempt < self.settings.attempts
                outcome.append("failed" if again else "dead")
                end = "there will be another attempt" if again else "that was the last attempt"
                log.warning("%s failed: %r; %s", claimed.job, error, end, extra=extra)
                async with asyncio.timeout(DATABASE_TIMEOUT):
                    await self.jobs.fail(claimed, f"{type(error).__name__}: {error}")
            else:
                async with asyncio.timeout(DATABASE_TIMEOUT):
                    await self.jobs.finish(claimed)
                outcome.append("done")
                log.info("%s done", claimed.job, extra=extra)

    @contextmanager
    def _timed(self, name: str) -> Iterator[list[str]]:
        """Whoever enters it appends what has come of it."""
        start = time.perf_counter()
        outcome: list[str] = []
        try:
            yield outcome
        finally:
            result = outcome[0] if outcome else "unfinished"
            self.metrics.job_duration.labels(name, result).observe(time.perf_counter() - start)

    def _tracked(self, work: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def run(*arguments: object) -> None:
            task: Any = asyncio.current_task()
            self._running.add(task)
            try:
                async with self._hands:
                    await work(*arguments)
            finally:
                self._running.discard(task)

        return run

    async def watch(self) -> None:
        """Show how much there is to do."""
        while True:
            try:
                async with asyncio.timeout(DATABASE_TIMEOUT):
                    backlog = await self.jobs.backlog()
            except (SQLAlchemyError, AppError, OSError) as error:
                log.warning("The outbox cannot be looked at: %s", getattr(error, "orig", error))
            else:
                self.metrics.jobs_waiting.set(backlog.waiting)
                self.metrics.jobs_oldest.set(backlog.oldest)
                self.metrics.jobs_dead.set(backlog.dead)
            await asyncio.sleep(SAMPLE)


async def work(settings: Settings, *, schedule: bool) -> None:
    """Until SIGTERM or SIGINT. `schedule`: be the scheduler as well."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        resources = await stack.enter_async_context(open_resources(settings))
        queue = resources["outbox"].queue
        jobs = JobService(resources["sessions"], settings.jobs)
        worker = JobWorker(Tools(resources, make_mailer(settings.mail), queue, jobs), settings)
        if settings.jobs.metrics_port is not None:
            await stack.enter_async_context(_showing(settings, resources["metrics"]))
        if settings.mail.url is None:
            log.warning("MAIL_URL is not set: mail waits in the outbox until it is")
        for warning in settings_warnings():
            log.warning(warning)
        await _warn_of_schema(resources["sessions"])
        log.info("Job worker started")
        works = [worker.watch(), beat(settings.jobs.heartbeat)]
        async with alongside(*works, *([run_scheduler(queue)] if schedule else [])):
            await worker.run(stop)
        log.info("Job worker stopped")


@asynccontextmanager
async def _showing(settings: Settings, metrics: Metrics) -> AsyncIterator[None]:
    port = settings.jobs.metrics_port or 0
    server, thread = start_http_server(port, settings.bind, metrics.registry)
    try:
        yield
    finally:
        await asyncio.to_thread(server.shutdown)  # it waits until the thread has looked
        server.server_close()
        thread.join()


async def _warn_of_schema(sessions: Sessions) -> None:
    try:
        async with asyncio.timeout(DATABASE_TIMEOUT), sessions.read() as session:
            if (lack := await SchemaState().lack(session)) is not None:
                log.error(lack)
    except (SQLAlchemyError, AppError, OSError):
        pass  # `watch` tells that there is no database
    except BrokenMigrations as error:
        raise SystemExit(str(error)) from None


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
