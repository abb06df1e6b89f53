from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import delete, func, select, update

from chassis.clock import now
from chassis.database.engines import Sessions
from chassis.database.transactions import retry_on_deadlock
from chassis.jobs.model import OutboxEntry
from chassis.jobs.settings import JobsSettings
from chassis.tasks.backoff import backoff
from chassis.telemetry.log_lines import hide_secrets

MARGIN = 15  # s; a lease is this much longer than JOBS_TIMEOUT
MAX_BACKOFF = 3600  # s
MAX_ERROR = 500  # characters
LOST = "The worker that did it was lost"


class Claimed(NamedTuple):
    """A job in the hands of a worker; `attempt` counts from 1, up to `max_attempts`."""

    id: int
    key: str
    job: str
    payload: str
    request_id: str | None
    created_at: datetime
    attempt: int
    max_attempts: int

    @property
    def is_last_attempt(self) -> bool:
        return self.attempt >= self.max_attempts


# The fields of Claimed in their order, but for the last; + 1: the attempt that a claim begins.
CLAIMED_COLUMNS: tuple[Any, ...] = (
    *(OutboxEntry.id, OutboxEntry.key, OutboxEntry.job, OutboxEntry.payload),
    *(OutboxEntry.request_id, OutboxEntry.created_at, OutboxEntry.attempts + 1),
)


class Backlog(NamedTuple):
    waiting: int  # running ones and those between two attempts included
    oldest: float  # age of the oldest, s
    dead: int


class JobStore:
    """The rows of the outbox, as job workers and operators need them.

    A worker claims rows that are due: it counts up `attempts` and sets `due_at` to the end of its
    lease, before which no other worker claims them. It then deletes the row (`finish`), or sets
    when it is due again (`fail`, `hand_back`). The row of a worker that died is due when its lease
    has ended. After `JOBS_ATTEMPTS` a row is dead: it stays, and is not claimed. See docs/jobs.md.
    """

    def __init__(self, sessions: Sessions, settings: JobsSettings) -> None:
        self.sessions = sessions
        self.settings = settings

    async def claim(self, limit: int) -> list[Claimed]:
        """Rows that no other worker has, those first that have been due for longest."""
        taken, lost = await self._claim(limit)
        while lost:  # they were among the `limit` rows, and are dead now
            more, lost = await self._claim(limit - len(taken))
            taken += more
        return taken

    @retry_on_deadlock
    async def _claim(self, limit: int) -> tuple[list[Claimed], int]:
        """The claimed rows, and how many are dead now, as their worker died in the last attempt."""
        is_due = OutboxEntry.dead_at.is_(None) & (OutboxEntry.due_at <= now())
        due = select(*CLAIMED_COLUMNS).where(is_due).order_by(OutboxEntry.due_at).limit(limit)
        lease = timedelta(seconds=self.settings.timeout + MARGIN)
        async with self.sessions.write() as session:
            rows = await session.execute(due.with_for_update(skip_locked=True))
            found = [Claimed(*[*row, self.settings.attempts]) for row in rows]
            taken = [each for each in found if each.attempt <= each.max_attempts]
            lost = [each.id for each in found if each.attempt > each.max_attempts]
            if taken:
                values = {"attempts": OutboxEntry.attempts + 1, "due_at": now() + lease}
                these = OutboxEntry.id.in_([each.id for each in taken])
                await session.execute(update(OutboxEntry).where(these).values(values))
            if lost:
                these = OutboxEntry.id.in_(lost)
                dead = update(OutboxEntry).where(these).values(dead_at=now(), error=LOST)
                await session.execute(dead)
            await session.commit()
        return taken, len(lost)

    @retry_on_deadlock
    async def finish(self, claimed: Claimed) -> None:
        """Delete the row, even if another worker has claimed it since: the work is done."""
        async with self.sessions.write() as session:
            await session.execute(delete(OutboxEntry).where(OutboxEntry.id == claimed.id))
            await session.commit()

    async def fail(self, claimed: Claimed, error: str) -> None:
        """Make it due again after a backoff, or dead if that was the last attempt."""
        values: dict[str, object] = {"error": hide_secrets(error)[:MAX_ERROR]}
        if claimed.is_last_attempt:
            values["dead_at"] = now()
        else:
            wait = backoff(self.settings.backoff, claimed.attempt, MAX_BACKOFF)
            values["due_at"] = now() + timedelta(seconds=wait)
        await self._change(claimed, values)

    async def hand_back(self, claimed: Claimed) -> None:
        """Make it due at once, with its attempt not counted: the worker stops."""
        await self._change(claimed, {"attempts": claimed.attempt - 1, "due_at": now()})

    async def backlog(self) -> Backlog:
        is_dead = OutboxEntry.dead_at.is_not(None)
        wanted = select(func.count(OutboxEntry.id), func.min(OutboxEntry.created_at))
        async with self.sessions.current() as session:
            alive: Any = (await session.execute(wanted.where(~is_dead))).one()
            dead = await session.scalar(wanted.where(is_dead))
        oldest = (now() - alive[1]).total_seconds() if alive[1] else 0.0
        return Backlog(alive[0], oldest, dead or 0)

    async def dead(self, limit: int = 1000) -> list[OutboxEntry]:
        wanted = select(OutboxEntry).where(OutboxEntry.dead_at.is_not(None))
        async with self.sessions.current() as session:
            rows = await session.scalars(wanted.order_by(OutboxEntry.id.desc()).limit(limit))
            return list(rows)

    @retry_on_deadlock
    async def requeue(self, entry_id: int | None = None) -> int:
        """Make a dead job, or all of them, due as if new; returns how many."""
        wanted = update(OutboxEntry).where(OutboxEntry.dead_at.is_not(None))
        if entry_id is not None:
            wanted = wanted.where(OutboxEntry.id == entry_id)
        values = {"dead_at": None, "error": None, "attempts": 0, "due_at": now()}
        async with self.sessions.write() as session:
            changed = await session.execute(wanted.values(values))
            await session.commit()
        return int(changed.rowcount)  # type: ignore[attr-defined]

    @retry_on_deadlock
    async def discard(self, entry_id: int) -> int:
        """Delete a dead job without running it; returns 0 if there is none."""
        this = delete(OutboxEntry).where(OutboxEntry.dead_at.is_not(None))
        async with self.sessions.write() as session:
            deleted = await session.execute(this.where(OutboxEntry.id == entry_id))
            await session.commit()
        return int(deleted.rowcount)  # type: ignore[attr-defined]

    @retry_on_deadlock
    async def _change(self, claimed: Claimed, values: dict[str, object]) -> None:
        """Change the row, unless another worker has claimed it since."""
        this = (OutboxEntry.id == claimed.id) & (OutboxEntry.attempts == claimed.attempt)
        async with self.sessions.write() as session:
            await session.execute(update(OutboxEntry).where(this).values(values))
            await session.commit()
