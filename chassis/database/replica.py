import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import Literal, TypeVar, get_args

from sqlalchemy import bindparam, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.database.columns import UTCDateTime
from chassis.database.metrics import DatabaseMetrics
from chassis.database.replica_model import ReplicaHeartbeat
from chassis.request_context import READ_ANY
from chassis.telemetry.metrics import Metrics

INTERVAL = 1.0  # s; between two checks, or a fifth of the lag allowed
CHECK_TIMEOUT = 2  # s; after that the replica counts as unavailable
CHECKS_TO_RETURN = 3  # successful ones in a row before reads use the replica again

READ_HEARTBEAT = select(ReplicaHeartbeat.beat_at).where(ReplicaHeartbeat.id == 1)
# Ages, in µs, of the replica's heartbeat and of the primary's, both by the primary's clock.
READ_AGES = text(
    "SELECT TIMESTAMPDIFF(MICROSECOND, :beat, UTC_TIMESTAMP(6)) AS age, TIMESTAMPDIFF(MICROSECOND,"
    " (SELECT beat_at FROM replica_heartbeat WHERE id = 1), UTC_TIMESTAMP(6)) AS own"
).bindparams(bindparam("beat", type_=UTCDateTime()))
WRITE_HEARTBEAT = text(
    "INSERT INTO replica_heartbeat (id, beat_at) VALUES (1, UTC_TIMESTAMP(6))"
    " ON DUPLICATE KEY UPDATE beat_at = VALUES(beat_at)"
)
FAILURES = (SQLAlchemyError, OSError)  # TimeoutError is an OSError

T = TypeVar("T")

ReplicaState = Literal["ok", "unknown", "lagging", "unavailable"]  # from best to worst

log = logging.getLogger("app.replica")


class Replica:
    """A replica that serves reads while its measured lag is at most `max_lag` s.

    Workers renew one row, the heartbeat, on the primary. The replica's data are at most as old as
    its copy of the heartbeat. The primary computes that age, as its clock has set it. Between
    two checks the lag grows with the clock, so a replica that stops is left as soon as it is too
    old. See docs/replication.md.
    """

    def __init__(self, name: str, max_lag: float, metrics: Metrics) -> None:
        self.name = name
        self.max_lag = max_lag
        self.interval = min(INTERVAL, max_lag / 5)
        self._lag = metrics.of(DatabaseMetrics).replica_lag.labels(name)
        self._avoided = metrics.of(DatabaseMetrics).replica_avoided.labels(name)
        self.state: ReplicaState = "unknown"
        self._current_at = time.monotonic()  # once measured: it had all writes up to then
        self._passed = 0  # successful checks in a row
        self._running: set[asyncio.Timeout] = set()

    def has(self, position: float) -> bool:
        """Whether it is in use, and has all writes up to `position` (see `read_position`)."""
        return (
            self.state == "ok"
            and position < self._current_at
            and time.monotonic() - self._current_at <= self.max_lag
        )

    @property
    def lag(self) -> float:
        """The most that it may be behind, s."""
        return time.monotonic() - self._current_at

    async def run(self, read: Callable[[], Awaitable[T]]) -> T:
        """Raises TimeoutError if the replica becomes unavailable meanwhile."""
        limit = asyncio.timeout(None)
        self._running.add(limit)
        try:
            async with limit:
                return await read()
        finally:
            self._running.discard(limit)

    def put_aside(self, state: Literal["lagging", "unavailable"], reason: object) -> None:
        """Send it no more reads of this worker; if "unavailable", end the running ones as well."""
        if self.state != state:
            why = str(getattr(reason, "orig", reason)) or "it does not respond"
            log.warning("No reads go to the replica %s, as it is %s: %s", self.name, state, why)
        self.state = state
        self._passed = 0
        if state == "unavailable":
            running, self._running = self._running, set()
            for limit in running:
                limit.reschedule(asyncio.get_running_loop().time())

    async def watch(self, replica: AsyncEngine, primary: AsyncEngine) -> None:
        """Check it every `interval` s, with engines that nothing else uses."""
        while True:
            try:
                await self._check(replica, primary)
            except Exception:
                log.exception("The replica %s could not be checked", self.name)
            self._lag.set(self.lag)
            self._avoided.set(not self.has(READ_ANY))
            await asyncio.sleep(self.interval)

    async def _check(self, replica: AsyncEngine, primary: AsyncEngine) -> None:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT), replica.connect() as connection:
                beat = await connection.scalar(READ_HEARTBEAT)
        except FAILURES as error:
            return self.put_aside("unavailable", error)
        if self.lag > self.max_lag:  # it was, until this check
            self.put_aside("lagging", f"{self.lag:.1f} s behind, or more")
        measured = False
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                measured = await self._measure(primary, beat)
        except FAILURES as error:
            log.info("The primary does not say how old the replica %s is: %s", self.name, error)
        self._passed = self._passed + 1 if measured and self.lag <= self.max_lag / 2 else 0
        if self.state != "ok" and self._passed >= CHECKS_TO_RETURN:
            log.info("Reads go to the replica %s", self.name)
            self.state = "ok"

    async def _measure(self, primary: AsyncEngine, beat: datetime | None) -> bool:
        asked_at = time.monotonic()
        async with primary.begin() as connection:
            age, own = (await connection.execute(READ_AGES, {"beat": beat})).one()
            if own is None or not 0 <= own < self.interval * 0.9e6:
                await connection.execute(WRITE_HEARTBEAT)
        # The replica's was read first: a younger one is not a copy of this primary's.
        if age is None or own is None or not 0 <= own <= age:
            return False
        self._current_at = asked_at - age / 1e6
        return True


def worst_state(replicas: Iterable[Replica]) -> ReplicaState | None:
    """None if there are none."""
    order: tuple[ReplicaState, ...] = get_args(ReplicaState)
    return max((replica.state for replica in replicas), key=order.index, default=None)
