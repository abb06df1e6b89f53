"""What an engine does with its connections: set them up, begin, ping them when idle."""

import time
from typing import Any, Literal

from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.exc import DataError, InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

from chassis.database.settings import DatabaseSettings

# `maintenance`: migrations and imports, without time limits.
Role = Literal["read", "replica", "write", "maintenance"]
READING: tuple[Role, ...] = ("read", "replica")
LOCK_TIMEOUT = 5  # s; longest wait for a row that another transaction holds


def mariadb_setup(settings: DatabaseSettings, role: Role) -> list[str]:
    setup = [
        # From 11.6.2 on, the default after a wait for a lock is an error, not the committed row.
        "SET SESSION /*M!110602 innodb_snapshot_isolation=OFF, */"
        "sql_mode='STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'"
    ]
    if role != "maintenance":
        limit = settings.statement_timeout
        setup[0] += f", max_statement_time={limit}, innodb_lock_wait_timeout={LOCK_TIMEOUT}"
    if role in READING:
        setup.append("SET SESSION TRANSACTION READ ONLY")
    return setup


def sqlite_setup(role: Role) -> list[str]:
    setup = [f"PRAGMA busy_timeout={LOCK_TIMEOUT * 1000}", "PRAGMA foreign_keys=ON"]
    return [*setup, "PRAGMA query_only=ON" if role in READING else "PRAGMA journal_mode=WAL"]


def run_on_connect(engine: AsyncEngine, statements: list[str]) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        cursor.close()


def refuse_unfit_values(engine: AsyncEngine) -> None:
    """Raise DataError for values that a type or a driver refuses, as if the database did."""

    @event.listens_for(engine.sync_engine, "handle_error")
    def refuse(context: ExceptionContext) -> BaseException | None:
        cause = context.original_exception
        if isinstance(cause, ValueError | OverflowError):
            return DataError(context.statement, context.parameters, cause, hide_parameters=True)
        return None


def begin_immediately(engine: AsyncEngine) -> None:
    """Take SQLite's write lock at BEGIN: if taken later, it may fail at once as a deadlock."""

    @event.listens_for(engine.sync_engine, "connect")
    def disable_implicit_begin(connection: Any, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def ping_idle_connections(engine: AsyncEngine, idle: float) -> None:
    """Ping connections unused for `idle` s at checkout; a ping at each would cost 60 µs."""
    dialect = engine.dialect

    @event.listens_for(engine.sync_engine, "checkin")
    def note_time(_: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
        entry.info["used_at"] = time.monotonic()

    @event.listens_for(engine.sync_engine, "checkout")
    def ping(connection: DBAPIConnection, entry: ConnectionPoolEntry, _: Any) -> None:
        if time.monotonic() - entry.info.get("used_at", float("inf")) < idle:
            return
        try:
            dialect.do_ping(connection)
        except dialect.loaded_dbapi.Error as error:
            # One dead connection means that the server went away: replace all older ones too.
            raise InvalidatePoolError from error
