"""`python -m app work`: a process that runs jobs until it is told to stop."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from prometheus_client import start_http_server
from sqlalchemy.exc import SQLAlchemyError

from chassis.database.engines import Sessions
from chassis.errors import AppError
from chassis.job_worker.registry import JobContext, Registry
from chassis.job_worker.worker import DATABASE_TIMEOUT, JobWorker, log
from chassis.mail.mailer import make_mailer
from chassis.migrations.revision import BrokenMigrations, SchemaState
from chassis.resources import open_resources
from chassis.service_settings import ChassisSettings
from chassis.settings.sources import unused_variables
from chassis.tasks.background import run_alongside, touch_heartbeat
from chassis.telemetry.metrics import Metrics


async def work(settings: ChassisSettings, registry: Registry) -> None:
    async with AsyncExitStack() as stack:
        resources = await stack.enter_async_context(open_resources(settings))
        context = JobContext(
            resources, make_mailer(settings.mail, registry.templates, resources["metrics"])
        )
        worker = JobWorker(context, registry)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, worker.stop)
        if settings.jobs.metrics_port is not None:
            await stack.enter_async_context(_showing(settings, resources["metrics"]))
        if settings.mail.url is None:
            log.warning("MAIL_URL is not set: mail waits in the outbox until it is")
        for warning in unused_variables(type(settings)):
            log.warning(warning)
        await _warn_of_schema(resources["sessions"])
        log.info("Job worker started")
        async with run_alongside(
            worker.export_backlog(),
            resources["outbox"].listen(worker.wake),
            touch_heartbeat(settings.jobs.heartbeat),
        ):
            await worker.run()
        log.info("Job worker stopped")


@asynccontextmanager
async def _showing(settings: ChassisSettings, metrics: Metrics) -> AsyncIterator[None]:
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
            if (lack := await SchemaState().shortfall(session)) is not None:
                log.error(lack)
    except (SQLAlchemyError, AppError, OSError):
        pass  # `watch` tells that there is no database
    except BrokenMigrations as error:
        raise SystemExit(str(error)) from None
