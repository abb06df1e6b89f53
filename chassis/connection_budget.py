"""The connection budget: what all processes may open, against the database's max_connections."""

import asyncio
from dataclasses import dataclass

from sqlalchemy import text

from chassis.database.engines import create_engine, database_url
from chassis.service_settings import ChassisSettings


@dataclass(frozen=True)
class Budget:
    """The connections that all processes may open, and those that the server allows."""

    replicas: int
    workers: int
    connections: int
    job_workers: int
    job_connections: int
    available: int

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
            "(DATABASE_POOL_SIZE + DATABASE_MAX_OVERFLOW, with a replica + 1) + "
            f"{self.job_workers} job workers x {self.job_connections} = {self.needed}, "
            f"and the server's max_connections is {self.available}"
        )


async def check_budget(settings: ChassisSettings) -> Budget | None:
    """Of all processes of the service; None for SQLite. Raises what a connect raises."""
    database = settings.database
    if database_url(database).get_backend_name() == "sqlite":
        return None
    engine = create_engine(database, "maintenance")
    try:
        # The driver's own limit does not cover the wait for the server's greeting.
        async with asyncio.timeout(database.connect_timeout), engine.connect() as connection:
            available = await connection.scalar(text("SELECT @@max_connections"))
    finally:
        await engine.dispose()
    # One more for the replica's heartbeat.
    heartbeat = database.read_url is not None
    connections = database.pool_size + database.max_overflow + heartbeat
    return Budget(
        replicas=settings.web.replicas,
        workers=settings.web.concurrency,
        connections=connections,
        job_workers=settings.jobs.replicas,
        # One for each job, one to claim further ones and one to count the backlog.
        job_connections=min(connections, settings.jobs.concurrency + 2 + heartbeat),
        available=available or 0,
    )
