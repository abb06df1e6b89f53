"""The read and the write engine of one worker: how they connect, wait, ping and retry."""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import URL, Executable, NullPool, Result, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.exc import DataError, DBAPIError, InvalidatePoolError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.pool import ConnectionPoolEntry

from app.database_timing import DatabaseTiming, TimedPool
from app.settings import DatabaseSettings

# Reads are most of the traffic; the write pool gets this part of the connections.
WRITE_SHARE = 0.25
LOCK_TIMEOUT = 5  # s; longest wait for a row that another transaction holds

Role = Literal["read", "write", "maintenance"]


class ReadSession(AsyncSession):
    """For reads only: the engine behind it commits each statement and refuses to write.

    `execute` and `scalars` ask once more when their connection has died.
    """

    async def execute(self, statement: Executable, *args: Any, **kwargs: Any) -> Result[Any]:
        try:
            return await super().execute(statement, *args, **kwargs)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            # The connection died under us. A read changes nothing, so ask again, once.
            await self.rollback()
            return await super().execute(statement, *args, **kwargs)


@dataclass(frozen=True)
class Sessions:
    """Session factories: `read` points to the replica if one is set, `write` to the primary.

    `current` reads what is committed by now: from the primary, at the least cost.
    """

    read: async_sessionmaker[ReadSession]
    write: async_sessionmaker[AsyncSession]
    current: async_sessionmaker[Any]

    @property
    def pools(self) -> dict[str, TimedPool]:
        return {"read": self.read.kw["bind"].pool, "write": self.write.kw["bind"].pool}


@asynccontextmanager
async def open_database(
    settings: DatabaseSettings, timing: DatabaseTiming
) -> AsyncIterator[Sessions]:
    """Two pools that connect when they are first used: a worker starts without its database."""
    read, write = create_engine(settings, "read"), create_engine(settings, "write")
    timing.watch(read, "read")
    timing.watch(write, "write")
    reads = async_sessionmaker(read, class_=ReadSession, expire_on_commit=False)
    # No autoflush: what a constraint refuses shows at the commit, in one place.
    writes = async_sessionmaker(write, expire_on_commit=False, autoflush=False)
    try:
        yield Sessions(reads, writes, current=writes if settings.read_url else reads)
    finally:
        await read.dispose()
        await write.dispose()


def create_engine(settings: DatabaseSettings, role: Role) -> AsyncEngine:
    """An engine for requests, or for `maintenance`: migrations and imports, without a limit."""
    url = database_url(settings, role)
    sqlite = url.get_backend_name() == "sqlite"
    options: dict[str, Any] = {"connect_args": {}}
    if not sqlite:
        options["connect_args"] = {"connect_timeout": settings.connect_timeout}
        # Who waited for a lock must see what its holder has committed.
        options["isolation_level"] = "READ COMMITTED"
    if role == "maintenance":
        options["poolclass"] = NullPool
    else:
        options |= _pool_options(settings, role)
    if role == "read":
        # No BEGIN and no ROLLBACK around a read, and the server parses it once.
        options |= {"isolation_level": "AUTOCOMMIT", "skip_autocommit_rollback": True}
        if not sqlite:
            options["connect_args"]["stmt_cache_size"] = 64

    if settings.echo:
        # With its own option SQLAlchemy would write each statement beside our log as well.
        logging.getLogger("sqlalchemy.engine").setLevel(logging.INFO)
    engine = create_async_engine(url, hide_parameters=not settings.echo, **options)
    _run_on_connect(engine, _sqlite_setup(role) if sqlite else _mariadb_setup(settings, role))
    _refuse_unfit_values(engine)
    if sqlite and role != "read":
        _begin_immediately(engine)
    elif not sqlite and role != "maintenance":
        _ping_idle_connections(engine, settings.ping_after)
    return engine


def database_url(settings: DatabaseSettings, role: Role = "write") -> URL:
    secret = settings.read_url if role == "read" and settings.read_url else settings.url
    url = make_url(secret.get_secret_value())
    if settings.password is not None:
        url = url.set(password=settings.password.get_secret_value())
    return url


def reason_of(error: Exception) -> str:
    """What the database or the network says, without the statement and the number of the error."""
    cause = getattr(error, "orig", error)
    arguments: tuple[Any, ...] = getattr(cause, "args", ())
    text = arguments[1] if len(arguments) == 2 and not isinstance(cause, OSError) else cause
    return " ".join(f"{text}".split()) or "it did not respond in time"


def _pool_options(settings: DatabaseSettings, role: Role) -> dict[str, Any]:
    pool_size = max(1, round(settings.pool_size * WRITE_SHARE))
    max_overflow = round(settings.max_overflow * WRITE_SHARE)
    if role == "read":
        pool_size = settings.pool_size - pool_size
        max_overflow = settings.max_overflow - max_overflow
    return {
        "poolclass": TimedPool,
        "pool_size": pool_size,
        "max_overflow": max_overflow,
        "pool_timeout": settings.pool_timeout,
        "pool_recycle": settings.pool_recycle,
        # The connection used last is the warmest; what a burst opened may grow old and go.
        "pool_use_lifo": True,
    }


def _mariadb_setup(settings: DatabaseSettings, role: Role) -> list[str]:
    setup = [
        # From 11.6.2 on, who waited for a lock gets an error instead of what its holder committed.
        "SET SESSION /*M!110602 innodb_snapshot_isolation=OFF, */"
        "sql_mode='STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'"
    ]
    if role != "maintenance":
        limit = settings.statement_timeout
        setup[0] += f", max_statement_time={limit}, innodb_lock_wait_timeout={LOCK_TIMEOUT}"
    if role == "read":
        setup.append("SET SESSION TRANSACTION READ ONLY")
    return setup


def _sqlite_setup(role: Role) -> list[str]:
    setup = [f"PRAGMA busy_timeout={LOCK_TIMEOUT * 1000}", "PRAGMA foreign_keys=ON"]
    return [*setup, "PRAGMA query_only=ON" if role == "read" else "PRAGMA journal_mode=WAL"]


def _run_on_connect(engine: AsyncEngine, statements: list[str]) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        cursor.close()


def _refuse_unfit_values(engine: AsyncEngine) -> None:
    """Raise DataError for values that a type or a driver refuses, as if the database did."""

    @event.listens_for(engine.sync_engine, "handle_error")
    def refuse(context: ExceptionContext) -> BaseException | None:
        cause = context.original_exception
        if isinstance(cause, ValueError | OverflowError):
            return DataError(context.statement, context.parameters, cause, hide_parameters=True)
        return None


def _begin_immediately(engine: AsyncEngine) -> None:
    """Take SQLite's write lock at BEGIN: waiting for it later fails at once as a deadlock."""

    @event.listens_for(engine.sync_engine, "connect")
    def leave_begin_to_us(connection: Any, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _ping_idle_connections(engine: AsyncEngine, idle: float) -> None:
    """Ping what was not used for `idle` seconds; pinging every checkout would cost 60 µs each."""
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
