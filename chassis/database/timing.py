"""Times what an engine does: statements, commits, and waiting for a connection."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from sqlalchemy import AsyncAdaptedQueuePool, event
from sqlalchemy.engine.interfaces import DBAPICursor, ExecutionContext
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import Pool, PoolProxiedConnection

from chassis.database.errors import is_refused_commit, is_undone
from chassis.database.metrics import DatabaseMetrics
from chassis.errors import Overloaded
from chassis.request_context import RequestContext, current_request
from chassis.telemetry.metrics import Metrics, ShedMetrics
from chassis.telemetry.tracing import Tracing

# Labels of metrics are bounded: every other statement is "OTHER".
OPERATIONS = ("SELECT", "INSERT", "UPDATE", "DELETE", "BEGIN", "COMMIT")
MAX_STATEMENT = 2000  # characters of it in a log line

log = logging.getLogger("app.database")


class TimedPool(AsyncAdaptedQueuePool):
    """A pool that measures each checkout, including a new connection or a ping.

    Once all connections are in use and `max_waiting` callers wait, it raises Overloaded at once.
    What a burst opens above `pool_size` is kept until `shrink` finds that it was not used: to open
    a connection costs more than some reads, and leaves holes in the heap where its buffers were.
    """

    observe_wait: Callable[[float], None] = staticmethod(lambda seconds: None)
    observe_refusal: Callable[[], None] = staticmethod(lambda: None)
    # Times a statement that a driver executes without its engine.
    timed: Callable[[str], AbstractContextManager[None]] = staticmethod(lambda text: nullcontext())
    max_waiting = 0
    waiting = 0

    def __init__(self, creator: Any, *, pool_size: int, max_overflow: int, **options: Any) -> None:
        super().__init__(creator, pool_size + max_overflow, max_overflow=0, **options)
        self.pool_size = pool_size
        self._unused = 0  # connections that were in the pool all the time since `shrink`

    def connect(self) -> PoolProxiedConnection:
        start = time.perf_counter()
        if self.waiting >= self.max_waiting and self.checkedout() >= self.size():
            self.observe_refusal()
            raise Overloaded("Too many requests wait for the database right now")
        self.waiting += 1
        try:
            return super().connect()
        finally:
            self.waiting -= 1
            self._unused = min(self._unused, self.checkedin())
            self.observe_wait(time.perf_counter() - start)

    def opened_above_size(self) -> int:
        return max(0, self.checkedin() + self.checkedout() - self.pool_size)

    def shrink(self) -> None:
        """Close connections above `pool_size` that nothing has used since the last call."""
        surplus = min(self._unused, self.opened_above_size())
        idle = [self._pool.get(block=False) for _ in range(self.checkedin())]  # the last used first
        unused, kept = idle[len(idle) - surplus :], idle[: len(idle) - surplus]
        for entry in reversed(kept):
            self._pool.put(entry, block=False)
        self._unused = len(kept)
        for entry in unused:
            self._dec_overflow()
            entry.close()


class DatabaseTiming:
    """Adds times to metrics and the current request; logs statements slower than `slow` s."""

    def __init__(self, metrics: Metrics, slow: float, max_waiting: int) -> None:
        self.all_metrics = metrics
        self.metrics = metrics.of(DatabaseMetrics)
        self.shed = metrics.of(ShedMetrics).shed["database"]
        self.slow = slow
        self.max_waiting = max_waiting
        self.tracing = Tracing()
        self._durations = {
            operation: self.metrics.statement_duration.labels(operation)
            for operation in (*OPERATIONS, "OTHER")
        }

    def watch(self, engine: AsyncEngine, pool: str) -> None:
        """Time the statements, commits and checkouts of an engine; `pool` labels its pool."""
        dialect = engine.dialect
        timed = partial(self._timed, dialect.name)
        self._watch_pool(engine.pool, pool, timed)

        def instead_of(call: Callable[..., None]) -> Callable[..., bool]:
            def execute(
                cursor: DBAPICursor, statement: str, parameters: Any, context: ExecutionContext
            ) -> bool:
                with timed(statement):
                    call(cursor, statement, parameters, context)
                return True

            return execute

        # Replaces the dialect's own, so that failed statements are timed too.
        for name in ("do_execute", "do_executemany"):
            event.listen(engine.sync_engine, name, instead_of(getattr(dialect, name)))

        # SQLAlchemy has an event before a commit and none after it.
        commit = dialect.do_commit

        def timed_commit(connection: PoolProxiedConnection) -> None:
            with _track_commit(current_request.get()), timed("COMMIT"):
                commit(connection)

        dialect.do_commit = timed_commit  # type: ignore[method-assign, assignment]

    def _watch_pool(
        self, pool: Pool, name: str, timed: Callable[[str], AbstractContextManager[None]]
    ) -> None:
        if not isinstance(pool, TimedPool):
            raise TypeError(f"{pool} is not a TimedPool")
        wait = self.metrics.pool_wait.labels(name)

        def observe(seconds: float) -> None:
            wait.observe(seconds)
            if (request := current_request.get()) is not None:
                request.add_time("db", seconds, count=0)

        pool.observe_wait = observe
        pool.timed = timed
        pool.observe_refusal = self.shed.inc
        pool.max_waiting = self.max_waiting

    @contextmanager
    def _timed(self, system: str, statement: str) -> Iterator[None]:
        verb = statement[:6].rstrip().upper()
        operation = verb if verb in OPERATIONS else "OTHER"
        start = time.perf_counter()
        try:
            with self.tracing.span(system, operation, statement):
                yield
        except Exception as error:
            if is_undone(error):
                self.metrics.deadlocks.inc()
            raise
        finally:
            self._record(operation, statement, time.perf_counter() - start)

    def _record(self, operation: str, statement: str, seconds: float) -> None:
        self._durations[operation].observe(seconds)
        request = current_request.get()
        if request is not None:
            request.add_time("db", seconds, count=operation not in ("BEGIN", "COMMIT"))
            if seconds > request.slowest_seconds:
                request.slowest_seconds = seconds
                request.slowest_statement = statement[:MAX_STATEMENT]
        if seconds > self.slow:
            duration = round(seconds * 1000, 2)
            log.warning(
                "Slow statement",
                extra={"duration_ms": duration, "statement": statement[:MAX_STATEMENT]},
            )


@contextmanager
def _track_commit(request: RequestContext | None) -> Iterator[None]:
    """Set `request.commit`; it stays "sent" once a commit of the request got no reply."""
    if request is None:
        yield
        return
    before, request.commit = request.commit, "sent"
    try:
        yield
    except Exception as error:
        if is_refused_commit(error):
            request.commit = before
        raise
    if before != "sent":
        request.commit = "done"
