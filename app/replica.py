"""How far a replica is behind, and so whether it is read from."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Literal, TypeVar

from sqlalchemy import bindparam, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.background import background
from app.metrics import Metrics
from app.models import ReplicaHeartbeat
from app.models.base import UTCDateTime
from app.schemas.health import ReplicaState

INTERVAL = 1.0  # s; between two checks, or a fifth of the lag allowed
CHECK_TIMEOUT = 2  # s; a replica that is silent for longer is not read from
CHECKS_TO_RETURN = 3  # in a row

READ_BEAT = select(ReplicaHeartbeat.beat_at).where(ReplicaHeartbeat.id == 1)
# In µs, of the replica's heartbeat and of the primary's own, both by the primary's clock.
READ_AGES = text(
    "SELECT TIMESTAMPDIFF(MICROSECOND, :beat, UTC_TIMESTAMP(6)) AS age, TIMESTAMPDIFF(MICROSECOND,"
    " (SELECT beat_at FROM replica_heartbeat WHERE id = 1), UTC_TIMESTAMP(6)) AS own"
).bindparams(bindparam("beat", type_=UTCDateTime()))
BEAT = text(
    "INSERT INTO replica_heartbeat (id, beat_at) VALUES (1, UTC_TIMESTAMP(6))"
    " ON DUPLICATE KEY UPDATE beat_at = VALUES(beat_at)"
)
FAILURES = (SQLAlchemyError, OSError)  # and with it TimeoutError

T = TypeVar("T")

log = logging.getLogger("app.replica")


class Replica:
    """A replica that is read from while it is proven to be at most `max_lag` s behind.

    The proof is a row, the heartbeat, which the workers renew on the primary. What the replica
    shows is at most as old as the heartbeat that it has, and how old that one is says the
    primary, whose clock has set it. Between two checks the age only grows, so a replica that
    stops is left at the moment when it gets too old. docs/replication.md has the argument.
    """

    def __init__(self, max_lag: float, metrics: Metrics) -> None:
        self.max_lag = max_lag
        self.interval = min(INTERVAL, max_lag / 5)
        self.metrics = metrics
        self.state: ReplicaState = "unknown"
        self._proven_at = time.monotonic()  # until when it has everything, once it is "ok"
        self._passed = 0  # checks in a row
        self._asking: set[asyncio.Timeout] = set()

    @property
    def in_use(self) -> bool:
        return self.state == "ok" and self.lag <= self.max_lag

    @property
    def lag(self) -> float:
        """The most that it may be behind, s."""
        return time.monotonic() - self._proven_at

    async def ask(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Raises TimeoutError where the replica is put aside meanwhile."""
        limit = asyncio.timeout(None)
        self._asking.add(limit)
        try:
            async with limit:
                return await ask()
        finally:
            self._asking.discard(limit)

    def put_aside(self, state: Literal["lagging", "unavailable"], reason: object) -> None:
        """All of this worker read from the primary, those included that wait for the replica."""
        if self.state != state:
            why = str(getattr(reason, "orig", reason)) or "it does not respond"
            log.warning("Reads go to the primary, as the replica is %s: %s", state, why)
        self.state = state
        self._passed = 0
        if state == "unavailable":
            asking, self._asking = self._asking, set()
            for limit in asking:
                limit.reschedule(asyncio.get_running_loop().time())

    async def watch(self, replica: AsyncEngine, primary: AsyncEngine) -> None:
        """Check it again and again, by engines that nothing else waits for."""
        while True:
            try:
                await self._check(replica, primary)
            except Exception:
                log.exception("The replica could not be checked")
            self.metrics.replica_lag.set(self.lag)
            self.metrics.replica_avoided.set(not self.in_use)
            await asyncio.sleep(self.interval)

    async def _check(self, replica: AsyncEngine, primary: AsyncEngine) -> None:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT), replica.connect() as connection:
                beat = await connection.scalar(READ_BEAT)
        except FAILURES as error:
            return self.put_aside("unavailable", error)
        if self.lag > self.max_lag:  # before what comes now, it was
            self.put_aside("lagging", f"{self.lag:.1f} s behind, or more")
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                await self._prove(primary, beat)
        except FAILURES as error:
            log.info("The primary does not say how old the replica is: %s", error)
        self._passed = self._passed + 1 if self.lag <= self.max_lag / 2 else 0
        if self.state != "ok" and self._passed >= CHECKS_TO_RETURN:
            log.info("Reads go to the replica")
            self.state = "ok"

    async def _prove(self, primary: AsyncEngine, beat: datetime | None) -> None:
        asked_at = time.monotonic()
        async with primary.begin() as connection:
            age, own = (await connection.execute(READ_AGES, {"beat": beat})).one()
            if own is None or not 0 <= own < self.interval * 0.9e6:
                await connection.execute(BEAT)
        # Older than the primary's own, as it was read before: else it is another's.
        if age is not None and own is not None and 0 <= own <= age:
            self._proven_at = asked_at - age / 1e6


@asynccontextmanager
async def watching(
    replica: Replica, replica_probe: AsyncEngine, primary_probe: AsyncEngine
) -> AsyncIterator[Replica]:
    try:
        async with background(replica.watch(replica_probe, primary_probe), "replica"):
            yield replica
    finally:
        await replica_probe.dispose()
        await primary_probe.dispose()
