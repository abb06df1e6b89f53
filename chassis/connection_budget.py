"""The connection budget: what all processes may open, against a server's max_connections."""

import asyncio
from dataclasses import dataclass

from sqlalchemy import URL, text
from sqlalchemy.exc import SQLAlchemyError

from chassis.database.engines import create_engine, pool_sizes
from chassis.database.settings import database_url, replica_urls
from chassis.database.urls import server_name
from chassis.service_settings import ChassisSettings

POOLS = "DATABASE_POOL_SIZE + DATABASE_MAX_OVERFLOW, with a replica + 1"
READ_POOL = "three quarters of DATABASE_POOL_SIZE + DATABASE_MAX_OVERFLOW, + 1"


@dataclass(frozen=True)
class Budget:
    """The connections that all processes may open, and those that the server allows."""

    replicas: int
    workers: int
    connections: int
    job_workers: int
    job_connections: int
    available: int
    pools: str = POOLS  # what `connections` are
    server: str = "the server"

    @property
    def needed(self) -> int:
        jobs = self.job_workers * self.job_connections
        return self.replicas * self.workers * self.connections + jobs

    @property
    def fits(self) -> bool:
        return self.needed <= self.available

    def __str__(self) -> str:
        return (
            f"{self.replicas} replicas x {self.workers} workers x {self.connections} connections "
            f"({self.pools}) + "
            f"{self.job_workers} job workers x {self.job_connections} = {self.needed}, "
            f"and {self.server}'s max_connections is {self.available}"
        )


async def check_budget(settings: ChassisSettings) -> Budget | None:
    """Of the primary; None for SQLite. Raises what a connect raises."""
    database = settings.database
    url = database_url(database)
    if url.get_backend_name() == "sqlite":
        return None
    # One more for the checks of replicas.
    checks = database.read_url is not None
    connections = database.pool_size + database.max_overflow + checks
    return Budget(
        replicas=settings.web.replicas,
        workers=settings.web.concurrency,
        connections=connections,
        job_workers=settings.jobs.replicas,
        # One for each job, one to claim further ones and one to count the backlog.
        job_connections=min(connections, settings.jobs.concurrency + 2 + checks),
        available=await _max_connections(settings, url),
    )


async def check_replica_budgets(settings: ChassisSettings) -> list[Budget]:
    """Of those replicas that respond: each has a pool for all reads, and one connection more."""
    connections = sum(pool_sizes(settings.database, "replica")) + 1

    async def check(url: URL) -> Budget | None:
        try:
            available = await _max_connections(settings, url)
        except (SQLAlchemyError, OSError):
            return None  # the service works without it
        return Budget(
            replicas=settings.web.replicas,
            workers=settings.web.concurrency,
            connections=connections,
            job_workers=settings.jobs.replicas,
            job_connections=min(connections, settings.jobs.concurrency + 1),
            available=available,
            pools=READ_POOL,
            server=f"replica {server_name(url)}",
        )

    budgets = await asyncio.gather(*map(check, replica_urls(settings.database)))
    return [budget for budget in budgets if budget is not None]


async def _max_connections(settings: ChassisSettings, url: URL) -> int:
    engine = create_engine(settings.database, "maintenance", url)
    try:
        # The driver's own limit does not cover the wait for the server's greeting.
        limit = settings.database.connect_timeout
        async with asyncio.timeout(limit), engine.connect() as connection:
            return await connection.scalar(text("SELECT @@max_connections")) or 0
    finally:
        await engine.dispose()
