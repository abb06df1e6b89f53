"""Monitors a worker from within: event loop, connection pools, memory, log."""

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

from chassis.database.engines import Sessions
from chassis.database.metrics import DatabaseMetrics
from chassis.limits.load_shedding import AdmissionController
from chassis.request_context import InFlight, RequestContext, current_request
from chassis.server.container_memory import container_memory
from chassis.server.garbage_collection import Collector
from chassis.server.metrics import CollectorMetrics, WorkerMetrics
from chassis.tasks.background import background
from chassis.telemetry.logs import Output
from chassis.telemetry.metrics import LogMetrics, Metrics
from chassis.telemetry.worker_slots import flush

INTERVAL = 0.05  # s; between beats of the event loop
SAMPLE = 1.0  # s; between updates of gauges
TICK = 0.025  # s; between looks of the watchdog
LOOKS = 4  # at the same task without a beat: it has blocked the loop for 0.1 s
FRAMES = 8  # innermost frames of the stack in the log

log = logging.getLogger("app.monitor")


@asynccontextmanager
async def open_monitor(monitor: "Monitor") -> AsyncIterator[None]:
    watchdog = Watchdog(monitor, monitor.in_flight)
    watchdog.start()
    monitor.collector.start()
    monitor.metrics.worker_boots.inc()
    try:
        async with background(monitor.run(), "monitor"):
            yield
    finally:
        watchdog.stop()
        monitor.collector.stop()
        monitor.sample()
        flush()


class Monitor:
    """Measures the lag of the event loop at each beat, and updates gauges once a second.

    The lag also adjusts the concurrency limit of admission control (docs/limits.md).
    """

    def __init__(
        self,
        metrics: Metrics,
        logs: Output,
        sessions: Sessions,
        in_flight: InFlight,
        admission: AdmissionController,
    ) -> None:
        self.metrics = metrics.of(WorkerMetrics)
        self.pools = metrics.of(DatabaseMetrics)
        self.log_metrics = metrics.of(LogMetrics)
        self.logs = logs
        self.sessions = sessions
        self.in_flight = in_flight
        self.admission = admission
        self.collector = Collector(metrics.of(CollectorMetrics))
        self.beats = 0
        self._dropped = 0

    async def run(self) -> None:
        sample_at = 0.0
        while True:
            start = time.perf_counter()
            if start >= sample_at:
                self.sample()
                sample_at = start + SAMPLE
            due = time.perf_counter() + INTERVAL
            await asyncio.sleep(INTERVAL)
            lag = max(0.0, time.perf_counter() - due)
            self.metrics.loop_lag.observe(lag)
            self.admission.adjust(lag)
            self.beats += 1
            flush()

    def sample(self) -> None:
        metrics = self.metrics
        metrics.requests_in_flight.set(len(self.in_flight))
        metrics.requests_receiving.set(self.admission.bodies.waiting)
        metrics.requests_working.set(self.admission.working)
        metrics.requests_working_limit.set(self.admission.limit)
        for name, pool in self.sessions.pools.items():
            self.pools.pool_size.labels(name).set(pool.pool_size)
            self.pools.pool_checked_out.labels(name).set(pool.checkedout())
            self.pools.pool_overflow.labels(name).set(pool.opened_above_size())
        self.collector.sample()
        dropped = self.logs.dropped
        self.log_metrics.log_lines_dropped.inc(dropped - self._dropped)
        self._dropped = dropped
        if (memory := resident_memory()) is not None:
            metrics.worker_memory.set(memory)
        if (container := container_memory()) is not None:
            metrics.container_memory.set(container.used)
            metrics.container_memory_limit.set(container.limit)


class Watchdog(threading.Thread):
    """A thread that logs which request blocks the event loop, while it does.

    An overdue beat runs before any task runs a second time. So a task that is seen running in LOOKS
    looks without a beat between them has not yielded to the loop.
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
        looks = 0  # rather than time, as the watchdog itself may get no CPU
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
        if sys.version_info >= (3, 12):  # includes tasks that a handler started
            return task.get_context().get(current_request)
        return self.in_flight.get(task)

    def _stack(self) -> list[str]:
        frame = sys._current_frames().get(self.loop_thread)
        calls = traceback.extract_stack(frame)[-FRAMES:]
        return [f"{call.filename}:{call.lineno} {call.name}" for call in calls]


def resident_memory(pid: int | Literal["self"] = "self") -> int | None:
    """In bytes; None without /proc."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
