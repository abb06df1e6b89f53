from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import User, UserSession
from app.schemas.accounts.session import SessionQuery, SessionRead
from app.schemas.user import Account
from chassis.database.keyset import Sort
from chassis.database.transactions import retry_on_deadlock
from chassis.errors import NotFound
from chassis.resources import Resources
from chassis.schemas.page import Page

TABLE: Any = UserSession.__table__
SORT = Sort("-created_at", TABLE.c.created_at, TABLE.c.id, descending=True)
COLUMNS = (*SORT.columns, TABLE.c.user_agent, TABLE.c.address, TABLE.c.used_at)


class SessionService:
    """Where an account is logged in, and the end of its sessions."""

    def __init__(self, resources: Resources) -> None:
        self.sessions = resources["sessions"]
        self.cache = resources["cache"]
        self.events = resources["security"]

    async def page(self, account: Account, query: SessionQuery) -> Page[SessionRead]:
        wanted = select(*COLUMNS).where(TABLE.c.user_id == account.user.id)
        wanted = wanted.order_by(*SORT.by(TABLE)).limit(query.limit + 1)
        if query.after is not None:
            wanted = wanted.where(SORT.after()).params(SORT.cursor_params(query.after))
        async with self.sessions.current() as session:
            rows = [*(await session.execute(wanted)).all()]
        page: Page[Any] = SORT.page(rows, query.limit)
        return Page(items=[_read(row, account) for row in page.items], next=page.next)

    @retry_on_deadlock
    async def log_out(self, account: Account) -> None:
        async with self.sessions.write() as session:
            await self._end(session, account.user.id, [account.session_id], "logout")

    @retry_on_deadlock
    async def end(self, account: Account, session_id: int) -> None:
        """Raises NotFound where the account has no such session."""
        own = (UserSession.id == session_id) & (UserSession.user_id == account.user.id)
        async with self.sessions.write() as session:
            if await session.scalar(select(UserSession.id).where(own).with_for_update()) is None:
                raise NotFound(f"Session {session_id} has ended, or never was one of this account")
            await self._end(session, account.user.id, [session_id], "ended by its account")

    @retry_on_deadlock
    async def end_others(self, account: Account) -> None:
        """All but the one of this request; the account is locked first, which excludes logins."""
        others = select(UserSession.id).where(
            UserSession.user_id == account.user.id, UserSession.id != account.session_id
        )
        async with self.sessions.write() as session:
            own = select(User.id).where(User.id == account.user.id)
            await session.execute(own.with_for_update())
            ids = (await session.scalars(others.order_by(UserSession.id))).all()
            await self._end(session, account.user.id, ids, "ended by its account")

    async def _end(
        self, session: AsyncSession, user_id: int, ids: Sequence[int], reason: str
    ) -> None:
        if not ids:
            return
        await session.execute(delete(UserSession).where(UserSession.id.in_(ids)))
        for id in ids:
            await self.events.audit(session, "session_ended", user_id, id, reason=reason)
        async with self.cache.invalidating(*(f"session:{id}" for id in ids)):
            await session.commit()


def _read(row: Any, account: Account) -> SessionRead:
    values = {**row._mapping, "id": str(row.id)}
    return SessionRead(**values, is_current=row.id == account.session_id)
