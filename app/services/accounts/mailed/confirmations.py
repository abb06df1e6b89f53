from functools import partial
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.logins.networks import has_logged_in
from app.logins.password_throttle import PasswordThrottle
from app.models import ApiKey, RecoveryCode, TotpSecret, User, UserSession
from app.schemas.accounts.mailed import EmailConfirmation, PasswordReset, Verification
from app.schemas.job import SendAddressChanged
from app.schemas.user import UserRead
from app.services.accounts.mailed.tokens import (
    USERS,
    Columns,
    Purpose,
    Redeemable,
    TokenRefused,
    digest_of,
    find,
    redeem,
)
from app.settings import settings_of
from chassis.clock import now
from chassis.database.transactions import retry_on_deadlock
from chassis.errors import Conflict, Invalid
from chassis.idempotency.requests import NO_KEY, IdempotentRequest
from chassis.resources import Resources


class ConfirmationService:
    """What the token of a mailed link does; it is good once.

    A token is looked at first without a lock, so that none is needed while a password is hashed,
    and an invalid one costs no hash. Its use is one transaction, which looks at it again.
    """

    def __init__(self, resources: Resources) -> None:
        self.sessions = resources["sessions"]
        self.cache = resources["cache"]
        self.passwords = resources["passwords"]
        self.outbox = resources["outbox"]
        self.events = resources["security"]
        self.must_verify = settings_of(resources).users.verify

    @retry_on_deadlock
    async def verify(
        self,
        body: Verification,
        throttle: PasswordThrottle,
        idempotent: IdempotentRequest = NO_KEY,
    ) -> UserRead:
        """The mail alone would let its reader open an account with the password of a stranger."""
        if (found := await self._find(body.token, Purpose.VERIFY)) is not None:
            await self._require_password(found.user, body.password, throttle)
        async with self.sessions.write() as session:
            work = partial(self._verify, session, body.token)
            user, is_new = await self._run(session, body.token, idempotent, work)
            if not is_new:
                return user
            await self.events.audit(session, "address_verified", user.id)
            async with self.cache.invalidating(f"user:{user.id}"):
                await session.commit()
        return user

    async def _verify(self, session: AsyncSession, token: str) -> UserRead:
        user = (await redeem(session, token, Purpose.VERIFY)).user
        return await self._change(session, user["id"], verified_at=now())

    @retry_on_deadlock
    async def reset(self, body: PasswordReset, idempotent: IdempotentRequest = NO_KEY) -> UserRead:
        """Ends all sessions, and verifies the address, which its mail has reached.

        Where that was not verified before, a stranger may have registered it: see _disown.
        """
        hash = ""  # of an invalid token, which goes no further
        if (found := await self._find(body.token, Purpose.RESET)) is not None:
            self.passwords.refuse_weak(body.password, found.user["email"])
            hash = await self.passwords.hash(body.password)
        ended: list[int] = []
        async with self.sessions.write() as session:
            work = partial(self._reset, session, body.token, hash, ended)
            user, is_new = await self._run(session, body.token, idempotent, work)
            if not is_new:
                return user
            await self.events.audit(session, "password_reset", user.id)
            for each in ended:
                reason = "password reset"
                await self.events.audit(session, "session_ended", user.id, each, reason=reason)
            async with self.cache.invalidating(f"user:{user.id}"):
                await session.commit()
        return user

    async def _reset(
        self, session: AsyncSession, token: str, hash: str, ended: list[int]
    ) -> UserRead:
        user = (await redeem(session, token, Purpose.RESET)).user
        if not hash:  # it was invalid a moment ago
            raise TokenRefused
        own = UserSession.user_id == user["id"]
        # The account is locked, which excludes logins; locking its sessions excludes refreshes.
        ended[:] = await session.scalars(select(UserSession.id).where(own).with_for_update())
        await session.execute(delete(UserSession).where(own))  # and their refresh tokens
        values = {"password_hash": hash, "verified_at": user["verified_at"] or now()}
        if self.must_verify and user["verified_at"] is None:
            values |= await self._disown(session, user["id"])
        return await self._change(session, user["id"], **values)

    async def _disown(self, session: AsyncSession, user_id: int) -> dict[str, object]:
        """Delete what else gives access to an account, or keeps others out of it: while
        USERS_VERIFY was off, anybody could register the address and make these.
        """
        own = ApiKey.user_id == user_id
        for key_id in (await session.scalars(select(ApiKey.id).where(own))).all():
            await self.events.audit(session, "key_revoked", user_id, key=str(key_id))
        on = select(User.id).where(User.id == user_id, User.totp.is_(True))
        if await session.scalar(on) is not None:
            await self.events.audit(session, "totp_disabled", user_id)
        for model in (ApiKey, TotpSecret, RecoveryCode):
            await session.execute(delete(model).where(model.user_id == user_id))
        return {"totp": False}

    @retry_on_deadlock
    async def change_address(
        self, body: EmailConfirmation, idempotent: IdempotentRequest = NO_KEY
    ) -> UserRead:
        """Raises Conflict where another account has got the address meanwhile."""
        async with self.sessions.write() as session:
            work = partial(self._change_address, session, body.token)
            user, is_new = await self._run(session, body.token, idempotent, work)
            if not is_new:
                return user
            await self.events.audit(session, "address_changed", user.id)
            async with self.cache.invalidating(f"user:{user.id}"):
                await session.commit()
        return user

    async def _change_address(self, session: AsyncSession, token: str) -> UserRead:
        user, email = await redeem(session, token, Purpose.EMAIL)
        try:
            read = await self._change(session, user["id"], email=email, verified_at=now())
        except IntegrityError:
            raise Conflict(f"There is an account for {email} already") from None
        key = f"address-changed-{digest_of(token)}"
        await self.outbox.write(session, SendAddressChanged(email=user["email"]), key=key)
        return read

    async def _find(self, token: str, purpose: Purpose) -> Redeemable | None:
        async with self.sessions.current() as session:
            return await find(session, token, purpose)

    async def _run(
        self, session: AsyncSession, token: str, idempotent: IdempotentRequest, work: Any
    ) -> tuple[UserRead, bool]:
        try:
            return await idempotent.owned_by(digest_of(token)).run(session, UserRead, work)
        except TokenRefused:
            self.events.record("mail_token_refused")
            raise

    async def _require_password(
        self, user: Columns, password: str, throttle: PasswordThrottle
    ) -> None:
        known = select(has_logged_in(throttle.network)).where(User.id == user["id"])
        async with self.sessions.current() as session:
            is_known = bool(await session.scalar(known))
        email, hash, id = user["email"], user["password_hash"], user["id"]
        verified = await throttle.verify(
            email, password, hash, account=id, is_known_network=is_known
        )
        if not verified.matches:
            self.events.record("password_refused", id)
            raise Invalid(
                "Is not that of the registration; if you do not know it, have it reset",
                ("body", "password"),
            )

    async def _change(self, session: AsyncSession, user_id: int, **values: object) -> UserRead:
        await session.execute(update(USERS).where(USERS.c.id == user_id).values(values))
        row = await session.execute(select(USERS).where(USERS.c.id == user_id))
        return UserRead.model_validate(dict(row.mappings().one()))
