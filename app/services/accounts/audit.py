"""The audit log: who has changed what about accounts, and when. See docs/observability.md."""

from typing import Any

from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.schemas.accounts.audit import AuditEventRead, AuditQuery
from chassis.auth.audit_model import AuditEvent
from chassis.database.keyset import Sort
from chassis.resources import Resources
from chassis.schemas.page import Page

BATCH = 200  # rows of a transaction

TABLE: Any = AuditEvent.__table__
COLUMNS = [TABLE.c[name] for name in AuditEventRead.model_fields]
SORT = Sort("-created_at", TABLE.c.created_at, TABLE.c.id, descending=True)


class AuditService:
    def __init__(self, resources: Resources) -> None:
        self.sessions = resources["sessions"]

    async def page(self, query: AuditQuery) -> Page[AuditEventRead]:
        wanted = select(*COLUMNS).order_by(*SORT.by(TABLE)).limit(query.limit + 1)
        if query.account_id is not None:
            wanted = wanted.where(TABLE.c.account_id == query.account_id)
        if query.since is not None:
            wanted = wanted.where(TABLE.c.created_at >= query.since)
        if query.after is not None:
            wanted = wanted.where(SORT.after()).params(SORT.cursor_params(query.after))
        async with self.sessions.current() as session:
            rows = await session.execute(wanted)
            return SORT.page([_read(row) for row in rows], query.limit)


async def erase_addresses(session: AsyncSession, user_id: int) -> tuple[int, set[str]]:
    """A batch of the rows of an account, which stay without the addresses of its clients."""
    own = or_(TABLE.c.account_id == user_id, TABLE.c.actor_id == user_id)
    found = select(TABLE.c.id).where(own, TABLE.c.client.is_not(None)).limit(BATCH)
    ids = (await session.scalars(found)).all()
    if ids:
        await session.execute(update(TABLE).where(TABLE.c.id.in_(ids)).values(client=None))
    return len(ids), set()


def _read(row: Any) -> AuditEventRead:
    values = {**row._mapping}
    if values["session_id"] is not None:
        values["session_id"] = str(values["session_id"])
    return AuditEventRead(**values)
