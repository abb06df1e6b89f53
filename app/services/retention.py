"""Deletes rows that have expired, which have had no effect since."""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Select, bindparam, delete, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import ApiKey, OneTimeToken, RefreshToken, UserSession
from chassis.auth.audit_model import AuditEvent
from chassis.clock import now
from chassis.database.transactions import retry_on_deadlock
from chassis.idempotency.model import IdempotencyRecord
from chassis.resources import Resources

BATCH = 200  # rows of a transaction, which holds its locks for about 10 ms
PAUSE = 2  # times the duration of a batch: cleaning takes a third of the database's time, at most

KEEP_KEYS = timedelta(days=30)  # after their expiry, so that lists say why they do not work

KEYS: Any = ApiKey.__table__
RECORDS: Any = IdempotencyRecord.__table__
AUDIT_EVENTS: Any = AuditEvent.__table__
SESSIONS: Any = UserSession.__table__
TOKENS: Any = RefreshToken.__table__
ONE_TIME_TOKENS: Any = OneTimeToken.__table__
DELETE_KEY = delete(KEYS).where(KEYS.c.id == bindparam("id"))
DELETE_RECORD = delete(RECORDS).where(RECORDS.c.digest == bindparam("id"))
DELETE_AUDIT_EVENT = delete(AUDIT_EVENTS).where(AUDIT_EVENTS.c.id == bindparam("id"))
DELETE_TOKEN = delete(TOKENS).where(TOKENS.c.digest == bindparam("id"))
DELETE_ONE_TIME_TOKEN = delete(ONE_TIME_TOKENS).where(ONE_TIME_TOKENS.c.digest == bindparam("id"))
DELETE_SESSION = delete(SESSIONS).where(SESSIONS.c.id == bindparam("id"))


class RetentionService:
    """Deletes in batches, of each table in turn, each batch in a transaction of its own.

    A batch skips rows that are locked, and deletes by primary key: a DELETE with a condition may
    read the whole table, and wait for locks of rows that it does not delete.
    """

    def __init__(self, resources: Resources) -> None:
        self.sessions = resources["sessions"]
        settings = resources["settings"]
        self.session_ttl = timedelta(seconds=settings.tokens.session_ttl)
        self.audit_retention = timedelta(seconds=settings.audit.retention)

    async def clean(self, seconds: float = 40) -> None:
        """At least a batch of each table, then more while there are expired rows and time is left.

        If a table fails, the others are still cleaned; then it raises the first error.
        """
        ends_at = time.monotonic() + seconds
        tables = [
            *(self._clean_records, self._clean_tokens, self._clean_old_sessions),
            *(self._clean_keys, self._clean_audit_events, self._clean_one_time_tokens),
        ]
        errors: list[SQLAlchemyError] = []
        while tables:
            for clean_batch in [*tables]:
                start = time.monotonic()
                try:
                    is_last = await clean_batch() < BATCH
                except SQLAlchemyError as error:
                    errors.append(error)
                    is_last = True
                if is_last:
                    tables.remove(clean_batch)
                await asyncio.sleep(PAUSE * (time.monotonic() - start))
            if time.monotonic() >= ends_at:
                break
        if errors:
            raise errors[0]

    @retry_on_deadlock
    async def _clean_records(self) -> int:
        expired = select(RECORDS.c.digest).where(RECORDS.c.expires_at < now())
        async with self.sessions.write() as session:
            digests = await _lock(session, expired.order_by(RECORDS.c.expires_at))
            await _delete(session, DELETE_RECORD, digests)
            await session.commit()
        return len(digests)

    @retry_on_deadlock
    async def _clean_tokens(self) -> int:
        """And the sessions without any other, which cannot be refreshed."""
        columns = (TOKENS.c.digest, TOKENS.c.session_id)
        expired = select(*columns).where(TOKENS.c.expires_at < now())
        async with self.sessions.write() as session:
            limited = expired.order_by(TOKENS.c.expires_at).limit(BATCH)
            tokens = (await session.execute(limited.with_for_update(skip_locked=True))).all()
            await _delete(session, DELETE_TOKEN, [token.digest for token in tokens])
            await self._end_sessions(session, {token.session_id for token in tokens})
            await session.commit()
        return len(tokens)

    async def _end_sessions(self, session: AsyncSession, ids: set[int]) -> None:
        """Those without tokens. A locked one is in use, or is being ended."""
        locked = await _lock(session, select(SESSIONS.c.id).where(SESSIONS.c.id.in_(ids)))
        of_them = TOKENS.c.session_id.in_(locked)
        alive = set(await session.scalars(select(TOKENS.c.session_id).where(of_them).distinct()))
        await _delete(session, DELETE_SESSION, [id for id in locked if id not in alive])

    @retry_on_deadlock
    async def _clean_old_sessions(self) -> int:
        """Older than TOKENS_SESSION_TTL, and those without tokens (after a new password)."""
        old = select(SESSIONS.c.id).where(SESSIONS.c.created_at < now() - self.session_ttl)
        async with self.sessions.write() as session:
            ids = await _lock(session, old.order_by(SESSIONS.c.created_at))
            own = select(TOKENS.c.digest).where(TOKENS.c.session_id.in_(ids))
            digests = await _lock(session, own)
            await _delete(session, DELETE_TOKEN, digests)
            if len(digests) < BATCH:  # else there may be more
                await _delete(session, DELETE_SESSION, ids)
            await session.commit()
        return max(len(ids), len(digests))

    @retry_on_deadlock
    async def _clean_keys(self) -> int:
        expired = select(KEYS.c.id).where(KEYS.c.expires_at < now() - KEEP_KEYS)
        async with self.sessions.write() as session:
            ids = await _lock(session, expired.order_by(KEYS.c.expires_at))
            await _delete(session, DELETE_KEY, ids)
            await session.commit()
        return len(ids)

    @retry_on_deadlock
    async def _clean_audit_events(self) -> int:
        old = AUDIT_EVENTS.c.created_at < now() - self.audit_retention
        wanted = select(AUDIT_EVENTS.c.id).where(old).order_by(AUDIT_EVENTS.c.created_at)
        async with self.sessions.write() as session:
            ids = await _lock(session, wanted)
            await _delete(session, DELETE_AUDIT_EVENT, ids)
            await session.commit()
        return len(ids)

    @retry_on_deadlock
    async def _clean_one_time_tokens(self) -> int:
        expired = select(ONE_TIME_TOKENS.c.digest).where(ONE_TIME_TOKENS.c.expires_at < now())
        async with self.sessions.write() as session:
            digests = await _lock(session, expired.order_by(ONE_TIME_TOKENS.c.expires_at))
            await _delete(session, DELETE_ONE_TIME_TOKEN, digests)
            await session.commit()
        return len(digests)


async def _lock(session: AsyncSession, rows: Select[Any]) -> Sequence[Any]:
    """The keys of a batch of these rows, locked, without those that are locked already."""
    limited = rows.limit(BATCH).with_for_update(skip_locked=True)
    return (await session.scalars(limited)).all()


async def _delete(session: AsyncSession, statement: Any, ids: Sequence[Any]) -> None:
    if ids:
        connection = await session.connection()
        await connection.execute(statement, [{"id": id} for id in ids])
