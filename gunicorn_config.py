"""Gunicorn's configuration; what differs between machines comes from the settings."""

import asyncio
import gc
import shutil

from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker
from sqlalchemy.exc import SQLAlchemyError

# Imported before the fork, which opens nothing: workers share the memory of all modules and
# start at once. SIGHUP brings new settings to new workers; new code needs a restart.
import app.main  # noqa: F401
from app import slots
from app.addresses import in_both_forms
from app.budget import connection_budget
from app.check import check_schema
from app.database import reason_of
from app.schema_revision import BrokenMigrations, read_migrations
from app.settings import read_service_settings, settings_warnings

settings = read_service_settings()

wsgi_app = "app.main:create_app()"
worker_class = "app.worker.Worker"
logger_class = "app.worker.WorkerLogger"

bind = [settings.address(port) for port in settings.ports]
workers = settings.web.concurrency
timeout = settings.web.timeout
graceful_timeout = settings.web.graceful_timeout
keepalive = settings.web.keepalive
# Memory that leaked comes back, at a different time in each worker.
max_requests = settings.web.max_requests
max_requests_jitter = settings.web.max_requests_jitter
forwarded_allow_ips = in_both_forms(settings.forwarded_allow_ips)

# Workers touch a file to show that they live; on a disk that can block them.
worker_tmp_dir = slots.memory_directory()
control_socket_disable = True


def on_starting(server: Arbiter) -> None:
    """Before the first worker: refuse what would fail later, under load."""
    warn_of_settings(server)
    try:
        read_migrations()
        budget = asyncio.run(connection_budget(settings))
        schema = asyncio.run(check_schema(settings))
    except BrokenMigrations as error:
        raise SystemExit(str(error)) from None
    except (SQLAlchemyError, OSError) as error:
        server.log.warning(
            "The connection budget and the schema are not checked, no database: %s",
            reason_of(error),
        )
        return
    if not schema.ok:
        # Workers start nevertheless: they are ready as soon as somebody migrates.
        server.log.error(schema.detail)
    if budget and not budget.fits:
        raise SystemExit(f"Too many connections: {budget}")


def warn_of_settings(server: Arbiter) -> None:
    for warning in settings_warnings():
        server.log.warning(warning)


on_reload = warn_of_settings


def pre_fork(server: Arbiter, worker: Worker) -> None:
    if not hasattr(server, "metrics"):  # now that nothing hinders the start any more
        server.metrics = slots.make_directory()
    worker.slot = slots.lowest_free(server.WORKERS.values())


def post_fork(server: Arbiter, worker: Worker) -> None:
    slots.occupy(worker.slot, server.metrics)


def post_worker_init(worker: Worker) -> None:
    # What every request uses is there for good: nothing that a collection should look at. And
    # requests at once make more objects than the 700 after which one starts by default.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


def child_exit(server: Arbiter, worker: Worker) -> None:
    slots.leave(worker.slot, server.metrics)


def on_exit(server: Arbiter) -> None:
    if hasattr(server, "metrics"):
        shutil.rmtree(server.metrics, ignore_errors=True)


def when_ready(server: Arbiter) -> None:
    # The garbage collector writes to what it visits; what is frozen stays shared.
    gc.collect()
    gc.freeze()
