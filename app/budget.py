"""The connection budget: what all workers may open, against what the server takes."""

import asyncio
from dataclasses import dataclass

from sqlalchemy import text

from app.database import create_engine, database_url
from app.settings import Settings


@dataclass(frozen=True)
class Budget:
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


async def connection_budget(settings: Settings) -> Budget | None:
    """None for SQLite, which has no such limit. Raises what connecting raises."""
    if database_url(settings.database).get_backend_name() == "sqlite":
        return None
    engine = create_engine(settings.database, "maintenance")
    try:
        # The driver's own limit ends when the server has accepted, before it says anything.
        async with (
            asyncio.timeout(settings.database.connect_timeout),
            engine.connect() as connection,
        ):
            available = await connection.scalar(text("SELECT @@max_connections"))
    finally:
        await engine.dispose()
    # One more for the heartbeat that a replica has to follow.
    heartbeat = settings.database.read_url is not None
    connections = settings.database.pool_size + settings.database.max_overflow + heartbeat
    return Budget(
        replicas=settings.web.replicas,
        workers=settings.web.concurrency,
        connections=connections,
        job_workers=settings.jobs.replicas,
        # A job has one; and there are the sweep and a look at the outbox.
        job_connections=min(connections, settings.jobs.concurrency + 2 + heartbeat),
        available=available or 0,
    )
