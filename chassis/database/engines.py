import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any, NamedTuple

from sqlalchemy import URL, NullPool
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
from chassis.database.settings import DatabaseSettings, database_url, replica_urls
from chassis.database.timing import DatabaseTiming, TimedPool
from chassis.database.urls import server_name
from chassis.request_context import READ_PRIMARY, read_position
from chassis.tasks.background import background

# Reads are most of the traffic; the write pool gets this part of the connections.
WRITE_SHARE = 0.25
SHRINK_INTERVAL = 60  # s; connections of a burst that are not used for so long are closed

# SQLite's and MariaDB's words for a table or a column that is not there.
_MISSING = re.compile(r"no such (table|column)|no column named|Unknown column|^Table .* exist$")


class ReplicaSessions(NamedTuple):
    replica: Replica
    factory: async_sessionmaker[ReplicaSession]


@dataclass(frozen=True)
class Sessions:
    """Session factories.

    `write` and `current` use the primary; `current` only reads. `read` may use a replica, so
    authentication, authorisation and checks before a write use one of the other two.
    See docs/replication.md.
    """

    current: async_sessionmaker[ReadSession]
    write: async_sessionmaker[AsyncSession]
    replicas: Sequence[ReplicaSessions] = ()
    turns: Iterator[ReplicaSessions] = field(default_factory=lambda: cycle(()), repr=False)

    @property
    def read(self) -> async_sessionmaker[ReadSession] | async_sessionmaker[ReplicaSession]:
        """In turn, the replicas that have all writes which the request needs (`read_position`);
        `current` if there is none.
        """
        if self.replicas and (position := read_position.get()) != READ_PRIMARY:
            for replica, factory in islice(self.turns, len(self.replicas)):
                if replica.has(position):
                    return factory
        return self.current

    @property
    def pools(self) -> dict[str, TimedPool]:
        pools = {"read": self.current.kw["bind"].pool, "write": self.write.kw["bind"].pool}
        for replica, factory in self.replicas:
            pools[pool_name(replica)] = factory.kw["bind"].pool
        return pools


@asynccontextmanager
async def open_database(
    settings: DatabaseSettings, timing: DatabaseTiming
) -> AsyncIterator[Sessions]:
    """Pools connect at their first use, so a worker starts without its database."""
    async with AsyncExitStack() as stack:

        def open_engine(role: Role, url: URL, pool: str = "") -> AsyncEngine:
            """`pool`: its label; without one, the engine is for checks of replicas."""
            engine = create_engine(settings, role, url, probe=not pool)
            if pool:
                timing.watch(engine, pool)
            stack.push_async_callback(engine.dispose)
            return engine

        url = database_url(settings)
        primary = open_engine("read", url, "read")
        reads = async_sessionmaker(primary, class_=ReadSession, expire_on_commit=False)
        # No autoflush: what a constraint refuses shows at the commit, in one place.
        writes = async_sessionmaker(
            open_engine("write", url, "write"), expire_on_commit=False, autoflush=False
        )
        on_replicas = []
        primary_probe = open_engine("write", url)  # one connection, which they share
        for replica_url in replica_urls(settings):
            replica = Replica(server_name(replica_url), settings.read_lag, timing.all_metrics)
            factory = async_sessionmaker(
                open_engine("replica", replica_url, pool_name(replica)),
                class_=ReplicaSession,
                replica=replica,
                primary=primary,
                expire_on_commit=False,
            )
            on_replicas.append(ReplicaSessions(replica, factory))
            probe = open_engine("replica", replica_url)
            await stack.enter_async_context(
                background(replica.watch(probe, primary_probe), f"replica {replica.name}")
            )
        sessions = Sessions(reads, writes, on_replicas, cycle(on_replicas))
        async with background(_shrink(sessions.pools.values()), "pools"):
            yield sessions


def pool_name(replica: Replica) -> str:
    return f"replica {replica.name}"


async def _shrink(pools: Iterable[TimedPool]) -> None:
    while True:
        await asyncio.sleep(SHRINK_INTERVAL)
        for pool in pools:
            await greenlet_spawn(pool.shrink)


def create_engine(
    settings: DatabaseSettings, role: Role, url: URL | None = None, *, probe: bool = False
) -> AsyncEngine:
    """`url`: a replica's, else the primary's. `probe`: with a pool of one connection."""
    url = url or database_url(settings)
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


def pool_sizes(settings: DatabaseSettings, role: Role) -> tuple[int, int]:
    """Size and overflow. Each replica's are those of all reads: it may be the last one."""
    pool_size = max(1, round(settings.pool_size * WRITE_SHARE))
    max_overflow = round(settings.max_overflow * WRITE_SHARE)
    if role in READING:
        return settings.pool_size - pool_size, settings.max_overflow - max_overflow
    return pool_size, max_overflow


def _pool_options(settings: DatabaseSettings, role: Role) -> dict[str, Any]:
    pool_size, max_overflow = pool_sizes(settings, role)
    return {
        "poolclass": TimedPool,
        "pool_size": pool_size,
        "max_overflow": max_overflow,
        "pool_timeout": settings.pool_timeout,
        "pool_recycle": settings.pool_recycle,
        # The connection used last is the warmest; what a burst opened may grow old and go.
        "pool_use_lifo": True,
    }
