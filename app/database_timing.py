"""Times what an engine does: statements, commits, and waiting for a connection."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from sqlalchemy import AsyncAdaptedQueuePool, event
from sqlalchemy.engine.interfaces import DBAPICursor, ExecutionContext
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import Pool, PoolProxiedConnection

from app.errors import Overloaded, is_refused_commit, is_undone
from app.metrics import Metrics
from app.request_context import RequestContext, current_request
from app.tracing import Tracing

# Labels are bounded: whatever else a statement starts with is "OTHER".
OPERATIONS = ("SELECT", "INSERT", "UPDATE", "DELETE", "BEGIN", "COMMIT")
MAX_STATEMENT = 2000  # characters of it in a log line

log = logging.getLogger("app.database")


class TimedPool(AsyncAdaptedQueuePool):
    """A pool that tells how long each checkout took, a new connection or a ping included.

    It has a queue of limited length: who would wait longest is told so at once.
    """

    observe_wait: Callable[[float], None] = staticmethod(lambda seconds: None)
    observe_refusal: Callable[[], None] = staticmethod(lambda: None)
    max_waiting = 0
    waiting = 0

    def connect(self) -> PoolProxiedConnection:
        start = time.perf_counter()
        if self.waiting >= self.max_waiting and self.checkedout() >= self._most():
            self.observe_refusal()
            raise Overloaded("Too many requests wait for the database right now")
        self.waiting += 1
        try:
            return super().connect()
        finally:
            self.waiting -= 1
            self.observe_wait(time.perf_counter() - start)

    def _most(self) -> int:
        return self.size() + self._max_overflow


class DatabaseTiming:
    """Adds times to metrics and to the request at hand; logs what took longer than `slow` s."""

    def __init__(self, metrics: Metrics, slow: float, max_waiting: int) -> None:
        self.metrics = metrics
        self.slow = slow
        self.max_waiting = max_waiting
        self.tracing = Tracing()
        self._durations = {
            operation: metrics.statement_duration.labels(operation)
            for operation in (*OPERATIONS, "OTHER")
        }

    def watch(self, engine: AsyncEngine, pool: str) -> None:
        """Time all that this engine does from now on; `pool` is the label of its pool."""
        self._watch_pool(engine.pool, pool)
        dialect = engine.dialect
        timed = partial(self._time, dialect.name)

        def instead_of(call: Callable[..., None]) -> Callable[..., bool]:
            def execute(
                cursor: DBAPICursor, statement: str, parameters: Any, context: ExecutionContext
            ) -> bool:
                timed(statement, call, cursor, statement, parameters, context)
                return True

            return execute

        # In place of the dialect's own, so that a statement that fails is timed too.
        for name in ("do_execute", "do_executemany"):
            event.listen(engine.sync_engine, name, instead_of(getattr(dialect, name)))

        # SQLAlchemy has an event before a commit and none after it.
        commit = dialect.do_commit

        def timed_commit(connection: PoolProxiedConnection) -> None:
            with _noting(current_request.get()):
                timed("COMMIT", commit, connection)

        dialect.do_commit = timed_commit  # type: ignore[method-assign, assignment]

    def _watch_pool(self, pool: Pool, name: str) -> None:
        if not isinstance(pool, TimedPool):
            raise TypeError(f"{pool} takes no times")
        wait = self.metrics.pool_wait.labels(name)

        def observe(seconds: float) -> None:
            wait.observe(seconds)
            if (request := current_request.get()) is not None:
                request.spend("db", seconds, count=0)

        pool.observe_wait = observe
        pool.observe_refusal = self.metrics.shed["database"].inc
        pool.max_waiting = self.max_waiting

    def _time(
        self, system: str, statement: str, call: Callable[..., None], *arguments: Any
    ) -> None:
        word = statement[:6].rstrip().upper()
        operation = word if word in OPERATIONS else "OTHER"
        start = time.perf_counter()
        try:
            with self.tracing.span(system, operation, statement):
                call(*arguments)
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
            request.spend("db", seconds, count=operation not in ("BEGIN", "COMMIT"))
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
def _noting(request: RequestContext | None) -> Iterator[None]:
    """What is known of a commit; a second one does not make up for a first that got no reply."""
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
