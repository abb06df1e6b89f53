from collections.abc import Sequence
from functools import partial
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.logins.last_admin import lock_admins, refuse_last_admin
from app.models import User, UserSession
from app.schemas.accounts.user_admin import UserAdminRead, UserAdminUpdate, UserQuery
from app.schemas.user import Role
from chassis.clock import now
from chassis.database.keyset import Sort
from chassis.database.transactions import retry_on_deadlock
from chassis.errors import NotFound
from chassis.http.etag import etag_of
from chassis.http.preconditions import UNCONDITIONAL, Preconditions
from chassis.resources import Resources
from chassis.schemas.fields import differing
from chassis.schemas.page import Page

TABLE: Any = User.__table__
COLUMNS = [TABLE.c[name] for name in UserAdminRead.model_fields]
SORT = Sort("email", TABLE.c.email)
LAST = "\U0010ffff"  # the last code point, which no address has


class AdministrationService:
    """Accounts, for administrators: their roles, and which of them may log in."""

    def __init__(self, resources: Resources) -> None:
        self.sessions = resources["sessions"]
        self.cache = resources["cache"]
        self.events = resources["security"]
        self.passwords = resources["passwords"]

    async def page(self, query: UserQuery) -> Page[UserAdminRead]:
        wanted = select(*COLUMNS).where(TABLE.c.deleted_at.is_(None))
        wanted = wanted.order_by(*SORT.by(TABLE)).limit(query.limit + 1)
        if query.email_prefix:  # a range of the index, on SQLite too
            prefix = query.email_prefix
            wanted = wanted.where(TABLE.c.email >= prefix, TABLE.c.email < prefix + LAST)
        if query.role is not None:
            wanted = wanted.where(TABLE.c.role == query.role)
        if query.disabled is not None:
            is_enabled = TABLE.c.disabled_at.is_(None)
            wanted = wanted.where(~is_enabled if query.disabled else is_enabled)
        if query.after is not None:
            wanted = wanted.where(SORT.after()).params(SORT.cursor_params(query.after))
        async with self.sessions.current() as session:
            rows = await session.execute(wanted)
            return SORT.page([UserAdminRead(**row) for row in rows.mappings()], query.limit)

    async def get(self, user_id: int) -> UserAdminRead:
        async with self.sessions.current() as session:
            return await _read(session, user_id)

    @retry_on_deadlock
    async def update(
        self,
        actor: int | None,
        user_id: int,
        body: UserAdminUpdate,
        preconditions: Preconditions = UNCONDITIONAL,
    ) -> UserAdminRead:
        """`actor`: the administrator's account; None: a command."""
        changes = body.model_dump(exclude_unset=True)
        async with self.sessions.write() as session:
            # All that may be the last, before the account itself: one order of locks.
            admins = await lock_admins(session) if _takes_rights(changes) else []
            row = await _read(session, user_id, lock=True)
            preconditions.check(etag_of(row))
            if "disabled" in changes and changes.pop("disabled") != (row.disabled_at is not None):
                changes["disabled_at"] = None if row.disabled_at else now()
            if not (changes := differing(row, changes)):
                return row
            if _takes_rights(changes):
                refuse_last_admin(admins, user_id)
            await session.execute(update(User).where(User.id == user_id).values(changes))
            ended: Sequence[int] = []
            if changes.get("disabled_at"):
                ended = await _end_sessions(session, user_id)
            stored = await _read(session, user_id)
            await self._audit(session, actor, user_id, changes, ended)
            tags = {f"session:{session_id}" for session_id in ended}
            async with self.cache.invalidating(f"user:{user_id}", *tags):
                await session.commit()
        return stored

    async def id_of(self, email: str) -> int:
        this = (User.email == email) & User.deleted_at.is_(None)
        async with self.sessions.current() as session:
            user_id: int | None = await session.scalar(select(User.id).where(this))
        if user_id is None:
            raise NotFound(f"There is no account for {email}")
        return user_id

    @retry_on_deadlock
    async def set_password(self, user_id: int, email: str, password: str) -> None:
        """For an operator; ends all sessions. Raises Invalid where the password is weak."""
        self.passwords.refuse_weak(password, email)
        password_hash = await self.passwords.hash(password)
        async with self.sessions.write() as session:
            await _read(session, user_id, lock=True)
            this = update(User).where(User.id == user_id)
            await session.execute(this.values(password_hash=password_hash))
            ended = await _end_sessions(session, user_id)
            await self.events.audit(session, "password_changed", user_id)
            for each in ended:
                reason = "password change"
                await self.events.audit(session, "session_ended", user_id, each, reason=reason)
            tags = {f"session:{session_id}" for session_id in ended}
            async with self.cache.invalidating(f"user:{user_id}", *tags):
                await session.commit()

    async def _audit(
        self,
        session: AsyncSession,
        actor: int | None,
        user_id: int,
        changes: dict[str, Any],
        ended: Sequence[int],
    ) -> None:
        audit = partial(self.events.audit, session, account=user_id, actor=actor)
        if "role" in changes:
            await audit("role_changed", role=changes["role"])
        if "disabled_at" in changes:
            await audit("account_disabled" if changes["disabled_at"] else "account_enabled")
        for session_id in ended:
            await audit("session_ended", session=session_id, reason="disabled")


def _takes_rights(changes: dict[str, Any]) -> bool:
    is_demoted = changes.get("role", Role.ADMIN) is not Role.ADMIN
    return is_demoted or bool(changes.get("disabled") or changes.get("disabled_at"))


async def _read(session: AsyncSession, user_id: int, *, lock: bool = False) -> UserAdminRead:
    wanted = select(*COLUMNS).where(User.id == user_id, User.deleted_at.is_(None))
    rows = await session.execute(wanted.with_for_update() if lock else wanted)
    row = rows.mappings().first()
    if row is None:
        raise NotFound(f"Account {user_id} does not exist")
    return UserAdminRead(**row)


async def _end_sessions(session: AsyncSession, user_id: int) -> Sequence[int]:
    """The account is locked, which excludes logins."""
    own = UserSession.user_id == user_id
    ended = (await session.scalars(select(UserSession.id).where(own))).all()
    await session.execute(delete(UserSession).where(own))
    return ended
