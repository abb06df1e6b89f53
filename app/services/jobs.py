import random
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Sessions
from app.log_lines import hide_secrets
from app.models import OutboxEntry
from app.models.base import now
from app.services.transactions import transaction
from app.settings import JobsSettings

RELAYED_FOR = timedelta(seconds=30)  # so long a message may be on its way
MARGIN = 15  # s; more than its timeout before a claimed job is taken for lost
MAX_BACKOFF = 3600  # s
MAX_ERROR = 500  # characters
LOST = "The worker that did it was lost"


class Claimed(NamedTuple):
    """A job in the hands of a worker; `attempt` counts from 1."""

    id: int
    key: str
    job: str
    payload: str
    request_id: str | None
    created_at: datetime
    attempt: int


class Backlog(NamedTuple):
    waiting: int
    oldest: float  # age of the oldest, s
    dead: int


class JobService:
    """Rows of the outbox. Each attempt has one worker: whoever counts it up first."""

    def __init__(self, sessions: Sessions, settings: JobsSettings) -> None:
        self.sessions = sessions
        self.settings = settings

    @transaction
    async def claim(self, entry_id: int, attempts: int) -> Claimed | None:
        """None where the job is done, or somebody else's: the message is an old one."""
        lease = timedelta(seconds=self.settings.timeout + MARGIN)
        this = (OutboxEntry.id == entry_id) & (OutboxEntry.attempts == attempts)
        this &= OutboxEntry.dead_at.is_(None)
        async with self.sessions.write() as session:
            values = {"attempts": attempts + 1, "due_at": now() + lease}
            claimed = await session.execute(update(OutboxEntry).where(this).values(values))
            if not claimed.rowcount:  # type: ignore[attr-defined]
                return None
            entry = await session.get_one(OutboxEntry, entry_id)
            await session.commit()
        return Claimed(
            id=entry.id,
            key=entry.key,
            job=entry.job,
            payload=entry.payload,
            request_id=entry.request_id,
            created_at=entry.created_at,
            attempt=entry.attempts,
        )

    @transaction
    async def finish(self, claimed: Claimed) -> None:
        async with self.sessions.write() as session:
            await session.execute(delete(OutboxEntry).where(OutboxEntry.id == claimed.id))
            await session.commit()

    async def fail(self, claimed: Claimed, error: str) -> None:
        """There will be another attempt, after a while that grows; or not, if it was the last."""
        values: dict[str, object] = {"error": hide_secrets(error)[:MAX_ERROR]}
        if claimed.attempt < self.settings.attempts:
            values["due_at"] = now() + timedelta(seconds=self._backoff(claimed.attempt))
        else:
            values["dead_at"] = now()
        await self._change(claimed, values)

    async def hand_back(self, claimed: Claimed) -> None:
        """Unfinished, as the worker has to stop: that is no failed attempt."""
        await self._change(claimed, {"attempts": claimed.attempt - 1, "due_at": now()})

    @transaction
    async def take_due(self, limit: int) -> list[tuple[int, int]]:
        """Ids and attempts of those to relay again: forgotten, failed or lost with a worker."""
        due = (
            select(OutboxEntry.id, OutboxEntry.attempts)
            .where(OutboxEntry.dead_at.is_(None), OutboxEntry.due_at <= now())
            .order_by(OutboxEntry.due_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        async with self.sessions.write() as session:
            rows = [(row.id, row.attempts) for row in await session.execute(due)]
            lost = [id for id, attempts in rows if attempts >= self.settings.attempts]
            taken = [row for row in rows if row[1] < self.settings.attempts]
            error = func.coalesce(OutboxEntry.error, LOST)
            await self._update(session, lost, {"dead_at": now(), "error": error})
            await self._update(session, [id for id, _ in taken], {"due_at": now() + RELAYED_FOR})
            await session.commit()
        return taken

    async def backlog(self) -> Backlog:
        is_dead = OutboxEntry.dead_at.is_not(None)
        wanted = select(func.count(OutboxEntry.id), func.min(OutboxEntry.created_at))
        async with self.sessions.current() as session:
            alive: Any = (await session.execute(wanted.where(~is_dead))).one()
            dead = await session.scalar(wanted.where(is_dead))
        oldest = (now() - alive[1]).total_seconds() if alive[1] else 0.0
        return Backlog(alive[0], oldest, dead or 0)

    async def dead(self, limit: int = 1000) -> list[OutboxEntry]:
        """The latest first."""
        wanted = select(OutboxEntry).where(OutboxEntry.dead_at.is_not(None))
        async with self.sessions.current() as session:
            rows = await session.scalars(wanted.order_by(OutboxEntry.id.desc()).limit(limit))
            return list(rows)

    @transaction
    async def requeue(self, entry_id: int | None = None) -> int:
        """Have the sweep relay a dead job, or all, as if it was new. How many those are."""
        wanted = update(OutboxEntry).where(OutboxEntry.dead_at.is_not(None))
        if entry_id is not None:
            wanted = wanted.where(OutboxEntry.id == entry_id)
        values = {"dead_at": None, "attempts": 0, "due_at": now()}
        async with self.sessions.write() as session:
            changed = await session.execute(wanted.values(values))
            await session.commit()
        return int(changed.rowcount)  # type: ignore[attr-defined]

    @transaction
    async def discard(self, entry_id: int) -> int:
        """Delete a dead job, undone. 0 where there is no such."""
        this = delete(OutboxEntry).where(OutboxEntry.dead_at.is_not(None))
        async with self.sessions.write() as session:
            deleted = await session.execute(this.where(OutboxEntry.id == entry_id))
            await session.commit()
        return int(deleted.rowcount)  # type: ignore[attr-defined]

    def _backoff(self, attempt: int) -> float:
        """Exponential, with jitter: what failed together does not come back together; in s."""
        delay = min(MAX_BACKOFF, self.settings.backoff * 2.0 ** (attempt - 1))
        return delay * random.uniform(0.5, 1.5)  # noqa: S311 - chance, not a secret

    @transaction
    async def _change(self, claimed: Claimed, values: dict[str, object]) -> None:
        """Unless it is somebody else's by now."""
        this = (OutboxEntry.id == claimed.id) & (OutboxEntry.attempts == claimed.attempt)
        async with self.sessions.write() as session:
            await session.execute(update(OutboxEntry).where(this).values(values))
            await session.commit()

    async def _update(
        self, session: AsyncSession, ids: list[int], values: dict[str, object]
    ) -> None:
        if ids:
            these = update(OutboxEntry).where(OutboxEntry.id.in_(ids)).values(values)
            await session.execute(these.execution_options(synchronize_session=False))
