import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import URL, NullPool, make_url
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.util import greenlet_spawn

from chassis.database.connect import (
    READING,
    Role,
    begin_immediately,
    mariadb_setup,
    ping_idle_connections,
    refuse_unfit_values,
    run_on_connect,
    sqlite_setup,
)
from chassis.database.read_session import ReadSession, ReplicaSession
from chassis.database.replica import Replica
from chassis.database.settings import DatabaseSettings
from chassis.database.timing import DatabaseTiming, TimedPool
from chassis.request_context import read_primary
from chassis.tasks.background import background

# Reads are most of the traffic; the write pool gets this part of the connections.
WRITE_SHARE = 0.25
SHRINK_INTERVAL = 60  # s; connections of a burst that are not used for so long are closed

# SQLite's and MariaDB's words for a table or a column that is not there.
_MISSING = re.compile(r"no such (table|column)|no column named|Unknown column|^Table .* exist$")

PROBED: tuple[Role, Role] = ("replica", "write")


@dataclass(frozen=True)
class Sessions:
    """Session factories.

    `write` and `current` use the primary; `current` only reads. `read` may use a replica, so
    authentication, authorisation and checks before a write use one of the other two.
    See docs/replication.md.
    """

    current: async_sessionmaker[ReadSession]
    write: async_sessionmaker[AsyncSession]
    replica: Replica | None = None
    on_replica: async_sessionmaker[ReplicaSession] | None = None

    @property
    def read(self) -> async_sessionmaker[ReadSession] | async_sessionmaker[ReplicaSession]:
        """The replica, while it keeps up with the primary, unless the request needs its own
        writes (`read_primary`); else `current`.
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
    """Pools connect at their first use, so a worker starts without its database."""
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
            sessions = Sessions(reads, writes)
            async with background(_shrink(sessions.pools.values()), "pools"):
                yield sessions
            return
        replica = Replica(settings.read_lag, timing.all_metrics)
        on_replica = async_sessionmaker(
            open_engine("replica"),
            class_=ReplicaSession,
            replica=replica,
            primary=reads.kw["bind"],
            expire_on_commit=False,
        )
        probes = [create_engine(settings, role, probe=True) for role in PROBED]
        for probe in probes:
            stack.push_async_callback(probe.dispose)
        sessions = Sessions(reads, writes, replica, on_replica)
        async with (
            background(replica.watch(*probes), "replica"),
            background(_shrink(sessions.pools.values()), "pools"),
        ):
            yield sessions


async def _shrink(pools: Iterable[TimedPool]) -> None:
    while True:
        await asyncio.sleep(SHRINK_INTERVAL)
        for pool in pools:
            await greenlet_spawn(pool.shrink)


def create_engine(settings: DatabaseSettings, role: Role, *, probe: bool = False) -> AsyncEngine:
    """`probe`: with a pool of one connection, for checks of the replica."""
    url = database_url(settings, role)
    sqlite = url.get_backend_name() == "sqlite"
    options: dict[str, Any] = {"connect_args": {}}
    if not sqlite:
        options["connect_args"] = {"connect_timeout": settings.connect_timeout}
        # After a wait for a lock, a transaction must see what the other one has committed.
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
        # SQLAlchemy's own option would print each statement outside of our log as well.
        logging.getLogger("sqlalchemy.engine").setLevel(logging.INFO)
    engine = create_async_engine(url, hide_parameters=not settings.echo, **options)
    run_on_connect(engine, sqlite_setup(role) if sqlite else mariadb_setup(settings, role))
    refuse_unfit_values(engine)
    if sqlite and role not in READING:
        begin_immediately(engine)
    elif not sqlite and role != "maintenance":
        ping_idle_connections(engine, settings.ping_after)
    return engine


def database_url(settings: DatabaseSettings, role: Role = "write") -> URL:
    secret = settings.read_url if role == "replica" and settings.read_url else settings.url
    url = make_url(secret.get_secret_value())
    if settings.password is not None:
        url = url.set(password=settings.password.get_secret_value())
    return url


def reason_of(error: Exception) -> str:
    """The message of the database or the network, without the statement and the error number, and
    what to do where it is known.
    """
    cause = getattr(error, "orig", error)
    arguments: tuple[Any, ...] = getattr(cause, "args", ())
    text = arguments[1] if len(arguments) == 2 and not isinstance(cause, OSError) else cause
    reason = " ".join(f"{text}".split()) or "it did not respond in time"
    if _MISSING.search(reason):
        reason += "; the schema may be older than this code: python -m app check"
    return reason


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
