"""Gunicorn's configuration; what differs between machines comes from the settings."""

import asyncio
import gc
import shutil

from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker
from sqlalchemy.exc import SQLAlchemyError

# Imported before the fork: workers share the memory of all modules and start at once. Nothing is
# opened by it. SIGHUP brings new settings to new workers; new code needs a restart.
import app.main  # noqa: F401
from app.settings import read_service_settings, settings_warnings
from chassis.addresses import in_both_forms
from chassis.connection_budget import check_budget, check_replica_budgets
from chassis.database.engines import reason_of
from chassis.migrations.revision import BrokenMigrations, read_migrations
from chassis.preflight import check_schema
from chassis.server.malloc import map_large_blocks
from chassis.telemetry import worker_slots

settings = read_service_settings()

wsgi_app = "app.main:create_app()"
worker_class = "chassis.server.worker.Worker"
logger_class = "chassis.server.worker.WorkerLogger"

bind = [settings.address(port) for port in settings.ports]
workers = settings.web.concurrency
timeout = settings.web.timeout
graceful_timeout = settings.web.graceful_timeout
keepalive = settings.web.keepalive
# Against leaks; the jitter keeps workers from being replaced at the same time.
max_requests = settings.web.max_requests
max_requests_jitter = settings.web.max_requests_jitter
forwarded_allow_ips = in_both_forms(settings.forwarded_allow_ips)

# Workers touch a file as a heartbeat; on a disk that could block.
worker_tmp_dir = worker_slots.memory_directory()
control_socket_disable = True


def on_starting(server: Arbiter) -> None:
    """Before the first worker: refuse to start with what would fail under load."""
    warn_of_settings(server)
    try:
        read_migrations()
        budget = asyncio.run(check_budget(settings))
        replica_budgets = asyncio.run(check_replica_budgets(settings))
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
        # Workers start nevertheless, and become ready with the migration.
        server.log.error(schema.detail)
    if budget and not budget.fits:
        raise SystemExit(f"Too many connections: {budget}")
    for each in replica_budgets:  # what one refuses, the primary serves
        if not each.fits:
            server.log.warning("Too many connections: %s", each)


def warn_of_settings(server: Arbiter) -> None:
    for warning in settings_warnings():
        server.log.warning(warning)


on_reload = warn_of_settings


def pre_fork(server: Arbiter, worker: Worker) -> None:
    if not hasattr(server, "metrics"):  # not earlier: the start may be refused
        server.metrics = worker_slots.make_directory()
    worker.slot = worker_slots.lowest_free(server.WORKERS.values())


def post_fork(server: Arbiter, worker: Worker) -> None:
    worker_slots.occupy(worker.slot, server.metrics)


def post_worker_init(worker: Worker) -> None:
    map_large_blocks()
    # What lives as long as the worker is kept out of collections. Concurrent requests make more
    # than the 700 objects after which one starts by default: that would cost a tenth of the CPU
    # time and free nothing, as they leave no cycles (tests/chassis/server/test_garbage.py).
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


def child_exit(server: Arbiter, worker: Worker) -> None:
    worker_slots.leave(worker.slot, server.metrics)


def on_exit(server: Arbiter) -> None:
    if hasattr(server, "metrics"):
        shutil.rmtree(server.metrics, ignore_errors=True)


def when_ready(server: Arbiter) -> None:
    # A collection writes to all objects, which unshares their memory; frozen ones are left alone.
    gc.collect()
    gc.freeze()
