"""The engines of one worker: how they connect, wait and ping."""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import URL, NullPool, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.exc import DataError, InvalidatePoolError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.pool import ConnectionPoolEntry

from app.database_timing import DatabaseTiming, TimedPool
from app.read_session import ReadSession, ReplicaSession
from app.replica import Replica, watching
from app.request_context import read_primary
from app.settings import DatabaseSettings

# Reads are most of the traffic; the write pool gets this part of the connections.
WRITE_SHARE = 0.25
LOCK_TIMEOUT = 5  # s; longest wait for a row that another transaction holds

# Where to, and what for; `maintenance` is for migrations and imports, without a limit.
Role = Literal["read", "replica", "write", "maintenance"]
READING: tuple[Role, ...] = ("read", "replica")
PROBED: tuple[Role, Role] = ("replica", "write")


@dataclass(frozen=True)
class Sessions:
    """Session factories. `write` and `current` go to the primary; `current` only reads.

    Whatever authenticates, authorises or decides on a write reads by `current` or `write`.
    """

    current: async_sessionmaker[ReadSession]
    write: async_sessionmaker[AsyncSession]
    replica: Replica | None = None
    on_replica: async_sessionmaker[ReplicaSession] | None = None

    @property
    def read(self) -> async_sessionmaker[ReadSession] | async_sessionmaker[ReplicaSession]:
        """For what anybody may see as it was DATABASE_READ_LAG ago: from the replica, if one is
        set, it keeps up and this request has no claim to more (`read_primary`).
        """
        replica, on_replica = self.replica, self.on_replica
        if replica is None or on_replica is None or read_primary.get() or not replica.in_use:
            return self.current
        return on_replica

    @property
    def pools(self) -> dict[str, TimedPool]:
        pools = {"read": self.current.kw["bind"].pool, "write": self.write.kw["bind"].pool}
        if self.on_replica is not None:
            pools["replica"] = self.on_replica.kw["bind"].pool
        return pools


@asynccontextmanager
async def open_database(
    settings: DatabaseSettings, timing: DatabaseTiming
) -> AsyncIterator[Sessions]:
    """Pools that connect when they are first used: a worker starts without its database."""
    async with AsyncExitStack() as stack:

        def open_engine(role: Role) -> AsyncEngine:
            engine = create_engine(settings, role)
            timing.watch(engine, role)
            stack.push_async_callback(engine.dispose)
            return engine

        reads = async_sessionmaker(open_engine("read"), class_=ReadSession, expire_on_commit=False)
        # No autoflush: what a constraint refuses shows at the commit, in one place.
        writes = async_sessionmaker(open_engine("write"), expire_on_commit=False, autoflush=False)
        if settings.read_url is None:
            yield Sessions(reads, writes)
            return
        replica = Replica(settings.read_lag, timing.metrics)
        on_replica = async_sessionmaker(
            open_engine("replica"),
            class_=ReplicaSession,
            replica=replica,
            primary=reads.kw["bind"],
            expire_on_commit=False,
        )
        probes = [create_engine(settings, role, probe=True) for role in PROBED]
        await stack.enter_async_context(watching(replica, *probes))
        yield Sessions(reads, writes, replica, on_replica)


def create_engine(settings: DatabaseSettings, role: Role, *, probe: bool = False) -> AsyncEngine:
    """`probe`: one that has one connection, for nothing but checks."""
    url = database_url(settings, role)
    sqlite = url.get_backend_name() == "sqlite"
    options: dict[str, Any] = {"connect_args": {}}
    if not sqlite:
        options["connect_args"] = {"connect_timeout": settings.connect_timeout}
        # Who waited for a lock must see what its holder has committed.
        options["isolation_level"] = "READ COMMITTED"
    if role == "maintenance":
        options["poolclass"] = NullPool
    elif probe:
        options |= {"pool_size": 1, "max_overflow": 0, "pool_recycle": settings.pool_recycle}
    else:
        options |= _pool_options(settings, role)
    if role in READING:
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
    if sqlite and role not in READING:
        _begin_immediately(engine)
    elif not sqlite and role != "maintenance":
        _ping_idle_connections(engine, settings.ping_after)
    return engine


def database_url(settings: DatabaseSettings, role: Role = "write") -> URL:
    secret = settings.read_url if role == "replica" and settings.read_url else settings.url
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
    if role in READING:
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
    if role in READING:
        setup.append("SET SESSION TRANSACTION READ ONLY")
    return setup


def _sqlite_setup(role: Role) -> list[str]:
    setup = [f"PRAGMA busy_timeout={LOCK_TIMEOUT * 1000}", "PRAGMA foreign_keys=ON"]
    return [*setup, "PRAGMA query_only=ON" if role in READING else "PRAGMA journal_mode=WAL"]


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
