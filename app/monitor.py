"""Watches one worker from within: its event loop, its pools, its memory, its log."""

import asyncio
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from app.background import background
from app.database import Sessions
from app.logs import Output
from app.metrics import Metrics
from app.request_context import InFlight, RequestContext, current_request
from app.slots import flush
from app.workload import Workload

BEAT = 0.05  # s; how often the loop is asked to come by
SAMPLE = 1.0  # s; how often gauges are set
TICK = 0.025  # s; how often the watchdog looks
LOOKS = 4  # at the same task, without a beat between them: it has not let go for 0.1 s
FRAMES = 8  # of the stack, the innermost ones

log = logging.getLogger("app.monitor")


@asynccontextmanager
async def open_monitor(
    metrics: Metrics, logs: Output, sessions: Sessions, in_flight: InFlight, workload: Workload
) -> AsyncIterator[None]:
    monitor = Monitor(metrics, logs, sessions, in_flight, workload)
    watchdog = Watchdog(monitor, in_flight)
    watchdog.start()
    metrics.worker_boots.inc()
    try:
        async with background(monitor.run(), "monitor"):
            yield
    finally:
        watchdog.stop()
        monitor.sample()
        flush()


class Monitor:
    def __init__(
        self,
        metrics: Metrics,
        logs: Output,
        sessions: Sessions,
        in_flight: InFlight,
        workload: Workload,
    ) -> None:
        self.metrics = metrics
        self.logs = logs
        self.sessions = sessions
        self.in_flight = in_flight
        self.workload = workload
        self.beats = 0
        self._dropped = 0

    async def run(self) -> None:
        sample_at = 0.0
        while True:
            start = time.perf_counter()
            if start >= sample_at:
                self.sample()
                sample_at = start + SAMPLE
            due = time.perf_counter() + BEAT
            await asyncio.sleep(BEAT)
            lag = max(0.0, time.perf_counter() - due)
            self.metrics.loop_lag.observe(lag)
            self.workload.adapt(lag)
            self.beats += 1
            flush()

    def sample(self) -> None:
        metrics = self.metrics
        metrics.requests_in_flight.set(len(self.in_flight))
        metrics.requests_working.set(self.workload.working)
        metrics.requests_working_limit.set(self.workload.limit)
        for name, pool in self.sessions.pools.items():
            metrics.pool_size.labels(name).set(pool.size())
            metrics.pool_checked_out.labels(name).set(pool.checkedout())
            metrics.pool_overflow.labels(name).set(max(0, pool.overflow()))
        dropped = self.logs.dropped
        metrics.log_lines_dropped.inc(dropped - self._dropped)
        self._dropped = dropped
        if (memory := resident_memory()) is not None:
            metrics.worker_memory.set(memory)


class Watchdog(threading.Thread):
    """Names the request that blocks the event loop, while it does.

    Once a beat is overdue, the loop comes to it before it runs any task a second time. A task that
    is found running look after look, without a beat between them, has not let go.
    """

    def __init__(self, monitor: Monitor, in_flight: InFlight) -> None:
        super().__init__(name="watchdog", daemon=True)
        self.monitor = monitor
        self.in_flight = in_flight
        self.loop = asyncio.get_running_loop()
        self.loop_thread = threading.get_ident()
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def run(self) -> None:
        seen: tuple[asyncio.Task[Any] | None, int] = (None, 0)
        looks = 0  # rather than time: a watchdog that got no CPU itself has seen nothing
        while not self._stopped.wait(TICK):
            now = asyncio.current_task(self.loop), self.monitor.beats
            looks = looks + 1 if now == seen and now[0] is not None else 0
            seen = now
            if looks == LOOKS and now[0] is not None:
                self._warn(now[0])

    def _warn(self, task: asyncio.Task[Any]) -> None:
        request = self._request_of(task)
        extra: dict[str, Any] = {"stack": self._stack()}
        if request is None:
            culprit = f"the task {task.get_name()}"
        else:
            culprit = f"{request.scope['method']} {request.route}"
            extra["request_id"] = request.id
        log.warning("The event loop is blocked by %s", culprit, extra=extra)

    def _request_of(self, task: asyncio.Task[Any]) -> RequestContext | None:
        if sys.version_info >= (3, 12):  # a task that a handler has started, too
            return task.get_context().get(current_request)
        return self.in_flight.get(task)

    def _stack(self) -> list[str]:
        frame = sys._current_frames().get(self.loop_thread)
        calls = traceback.extract_stack(frame)[-FRAMES:]
        return [f"{call.filename}:{call.lineno} {call.name}" for call in calls]


def resident_memory(pid: int | Literal["self"] = "self") -> int | None:
    """In bytes; None where there is no /proc."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
