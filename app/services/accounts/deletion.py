"""Deletion of an account with all that belongs to it; docs/accounts.md says what that is."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.logins.last_admin import lock_admins, refuse_last_admin
from app.logins.password_throttle import PasswordThrottle
from app.models import (
    ApiKey,
    LoginNetwork,
    OneTimeToken,
    RecoveryCode,
    TotpSecret,
    User,
    UserSession,
)
from app.schemas.user import Account, Role, UserRead
from app.services.accounts.audit import erase_addresses
from app.services.accounts.users import COLUMNS, UserService
from app.services.review_deletion import delete_reviews  # sample
from chassis.clock import now
from chassis.database.transactions import retry_on_deadlock
from chassis.errors import Conflict
from chassis.http.etag import etag_of
from chassis.http.preconditions import UNCONDITIONAL, Preconditions
from chassis.resources import Resources

PAUSE = 2  # times the duration of a batch, in which others have the database to themselves
MAX_ACCOUNTS = 100  # of a query for those that are left

# What ends with the account at once: it has few rows. Refresh tokens go with their session.
AT_ONCE: Sequence[Any] = (
    *(UserSession, LoginNetwork, OneTimeToken, ApiKey),
    *(TotpSecret, RecoveryCode),
)

# Each deletes a batch of what may have many rows, in the caller's transaction, and returns how many
# it has found and the tags to invalidate. What has no such function goes with the account's row.
Batch = Callable[[AsyncSession, int], Awaitable[tuple[int, set[str]]]]
IN_BATCHES: list[Batch] = [erase_addresses]
IN_BATCHES += [delete_reviews]  # sample


class DeletionService:
    """First the account ends: in one short transaction it loses its sessions, its address, its name
    and its password, and the address is free. Its empty row stays until what refers to it is
    deleted, in batches: right after the response, and what is left by a periodic job.
    """

    def __init__(self, resources: Resources) -> None:
        self.users = UserService(resources)
        self.sessions = resources["sessions"]
        self.cache = resources["cache"]
        self.events = resources["security"]

    @retry_on_deadlock
    async def delete(
        self,
        account: Account,
        password: str,
        throttle: PasswordThrottle,
        preconditions: Preconditions = UNCONDITIONAL,
    ) -> None:
        # Before the password, which costs a hash, and again once the account is locked.
        preconditions.check(etag_of(account.user))
        old_hash = await self.users.require_password(account, password, throttle)
        user_id = account.user.id
        async with self.sessions.write() as session:
            admins = await lock_admins(session)
            this = (User.id == user_id) & User.deleted_at.is_(None)
            me = select(*COLUMNS, User.password_hash).where(this)
            locked = (await session.execute(me.with_for_update())).first()
            if locked is None or locked.password_hash != old_hash:
                raise Conflict("The account was changed by another request; try again")
            preconditions.check(etag_of(UserRead(**locked._mapping)))
            refuse_last_admin(admins, user_id)
            own = UserSession.user_id == user_id
            ended = (await session.scalars(select(UserSession.id).where(own))).all()
            for model in AT_ONCE:
                await session.execute(delete(model).where(model.user_id == user_id))
            await session.execute(update(User).where(User.id == user_id).values(_empty(user_id)))
            await self.events.audit(session, "account_deleted", user_id, account.session_id)
            tags = {f"session:{session_id}" for session_id in ended}
            async with self.cache.invalidating(f"user:{user_id}", *tags):
                await session.commit()

    async def delete_rest(self, user_id: int, seconds: float) -> None:
        """Of an account that has ended: a batch at least, and then more for so long."""
        ends_at = time.monotonic() + seconds
        while True:
            start = time.monotonic()
            if await self._delete_batch(user_id) or start >= ends_at:
                return
            await asyncio.sleep(PAUSE * (time.monotonic() - start))

    async def delete_all(self, seconds: float) -> None:
        """The rest of all accounts that have ended, those first that ended first."""
        ends_at = time.monotonic() + seconds
        ended = select(User.id).where(User.deleted_at.is_not(None))
        async with self.sessions.current() as session:
            ids = await session.scalars(ended.order_by(User.deleted_at).limit(MAX_ACCOUNTS))
        for user_id in ids.all():
            await self.delete_rest(user_id, ends_at - time.monotonic())
            if time.monotonic() >= ends_at:
                return

    @retry_on_deadlock
    async def _delete_batch(self, user_id: int) -> bool:
        """Whether nothing is left. With its row locked, no request can add to what it has."""
        this = (User.id == user_id) & User.deleted_at.is_not(None)
        async with self.sessions.write() as session:
            if await session.scalar(select(User.id).where(this).with_for_update()) is None:
                return True
            found, tags = 0, {f"user:{user_id}"}
            for delete_some in IN_BATCHES:
                count, more = await delete_some(session, user_id)
                found += count
                tags |= more
            if not found:
                await session.execute(delete(User).where(this))
            async with self.cache.invalidating(*tags):
                await session.commit()
        return not found


def _empty(user_id: int) -> dict[str, Any]:
    """What is left of an account: nothing about a person, nothing that logs in."""
    return {
        "email": f"deleted:{user_id}",  # no address; unique
        "name": "Deleted account",
        "password_hash": "",
        "role": Role.READER,
        "totp": False,
        "disabled_at": None,
        "deleted_at": now(),
    }
