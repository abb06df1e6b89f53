"""`python -m app schedule`: says when repeated jobs are due. One process does, for all workers."""

import asyncio
import logging
import signal

from taskiq import ScheduledTask, ScheduleSource, TaskiqScheduler
from taskiq.cli.scheduler.run import SchedulerLoop

from app.background import alongside, beat
from app.job_queue import QUEUE_ERRORS, REPEAT, JobQueue, open_job_queue
from app.jobs import REPEATED
from app.logs import open_logs
from app.settings import Settings, settings_warnings

SEND_TIMEOUT = 5  # s

log = logging.getLogger("app.scheduler")


class Intervals(ScheduleSource):
    async def get_schedules(self) -> list[ScheduledTask]:
        return [
            ScheduledTask(
                task_name=REPEAT,
                schedule_id=name,
                labels={},
                args=[name],
                kwargs={},
                interval=repeated.every,
            )
            for name, repeated in REPEATED.items()
        ]


class Scheduler(TaskiqScheduler):
    async def on_ready(self, source: ScheduleSource, task: ScheduledTask) -> None:
        try:
            await super().on_ready(source, task)
        except QUEUE_ERRORS as error:
            log.warning("%s is left out, as the queue is away: %r", task.schedule_id, error)


async def run_scheduler(queue: JobQueue) -> None:
    loop = SchedulerLoop(Scheduler(queue.broker, [Intervals()]))
    await loop.run(send_timeout=SEND_TIMEOUT)


async def schedule(settings: Settings) -> None:
    """Until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with open_logs(settings.log), open_job_queue(settings) as queue:
        for warning in settings_warnings():
            log.warning(warning)
        log.info("Scheduler started")
        async with alongside(beat(settings.jobs.heartbeat), run_scheduler(queue)):
            await stop.wait()
        log.info("Scheduler stopped")
