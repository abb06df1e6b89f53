import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.logins.networks import has_logged_in
from app.logins.password_throttle import PasswordThrottle
from app.logins.refusals import REFUSED_OTP, OtpRefused
from app.logins.second_factor import CODES, SECRETS, SecondFactor
from app.models import User
from app.schemas.accounts.totp import TotpEnabled, TotpPending
from app.schemas.job import SendTotpChanged
from app.schemas.user import Account
from app.services.accounts.users import UserService
from chassis.auth.security_events import Event
from chassis.auth.totp import Unreadable, digest_of, make_recovery_code, normalize_otp
from chassis.database.transactions import retry_on_deadlock
from chassis.errors import Conflict, Invalid, NotFound
from chassis.idempotency.requests import NO_KEY, IdempotentRequest
from chassis.resources import Resources

RECOVERY_CODES = 10  # of an account
BATCH = 200  # secrets of a transaction
ON = "This account has a second factor already; DELETE it first"
OFF = "This account has no second factor"


class TotpService:
    """The second factor of accounts: see docs/accounts.md."""

    def __init__(self, resources: Resources) -> None:
        self.users = UserService(resources)
        self.second_factor = SecondFactor(resources)
        self.sessions = resources["sessions"]
        self.cache = resources["cache"]
        self.events = resources["security"]
        self.outbox = resources["outbox"]
        self.secrets = resources["totp"]

    @retry_on_deadlock
    async def begin(
        self,
        account: Account,
        password: str,
        throttle: PasswordThrottle,
        idempotent: IdempotentRequest = NO_KEY,
    ) -> TotpPending:
        """A secret that is not in force yet, in place of an earlier one that is not."""
        hash = await self.users.require_password(account, password, throttle)
        async with self.sessions.write() as session:
            work = partial(self._begin, session, account, hash)
            pending, is_new = await idempotent.run(session, TotpPending, work)
            if is_new:
                await session.commit()
        return pending

    @retry_on_deadlock
    async def enable(
        self,
        account: Account,
        password: str,
        otp: str,
        throttle: PasswordThrottle,
        idempotent: IdempotentRequest = NO_KEY,
    ) -> TotpEnabled:
        """Bring that secret into force. Raises Invalid where `otp` is not a code of it."""
        hash = await self.users.require_password(account, password, throttle)
        async with self._guessing(account, throttle) as session:
            work = partial(self._enable, session, account, hash, otp)
            enabled, is_new = await idempotent.run(session, TotpEnabled, work)
            if is_new:
                await self._commit(session, account.user.id, account.session_id, on=True)
        return enabled

    @retry_on_deadlock
    async def disable(
        self, account: Account, password: str, otp: str, throttle: PasswordThrottle
    ) -> None:
        hash = await self.users.require_password(account, password, throttle)
        user_id = account.user.id
        async with self._guessing(account, throttle) as session:
            if not await self._lock(session, account, hash):
                raise NotFound(OFF)
            await self.second_factor.use(session, user_id, otp)
            await self._commit(session, user_id, account.session_id, on=False)

    @retry_on_deadlock
    async def reset(self, user_id: int) -> None:
        """For an operator, whose user has lost the app and the recovery codes."""
        async with self.sessions.write() as session:
            this = select(User.id).where(User.id == user_id, User.totp.is_(True))
            if await session.scalar(this.with_for_update()) is None:
                raise NotFound(OFF)
            await self._commit(session, user_id, on=False)

    async def renew(self) -> tuple[int, int]:
        """Encrypt all secrets with the newest key; how many, and how many cannot be read."""
        renewed, unreadable, after = 0, 0, 0
        while True:
            done, failed, last = await self._renew_batch(after)
            renewed, unreadable = renewed + done, unreadable + failed
            if last is None:
                return renewed, unreadable
            after = last

    @retry_on_deadlock
    async def _renew_batch(self, after: int) -> tuple[int, int, int | None]:
        batch = select(SECRETS).where(SECRETS.c.user_id > after).order_by(SECRETS.c.user_id)
        failed = 0
        async with self.sessions.write() as session:
            rows = (await session.execute(batch.limit(BATCH).with_for_update())).all()
            for row in rows:
                try:
                    values = {"secret": self.secrets.renew(row.secret)}
                except Unreadable:
                    failed += 1
                    continue
                this = update(SECRETS).where(SECRETS.c.user_id == row.user_id)
                await session.execute(this.values(values))
            await session.commit()
        return len(rows) - failed, failed, rows[-1].user_id if rows else None

    async def _begin(self, session: AsyncSession, account: Account, hash: str) -> TotpPending:
        if await self._lock(session, account, hash):
            raise Conflict(ON)
        made = self.secrets.make(account.user.email)
        user_id = account.user.id
        await session.execute(delete(SECRETS).where(SECRETS.c.user_id == user_id))
        values = {"user_id": user_id, "secret": made.encrypted, "used_step": 0}
        await session.execute(insert(SECRETS).values(values))
        return TotpPending(secret=made.secret, uri=made.uri)

    async def _enable(
        self, session: AsyncSession, account: Account, hash: str, otp: str
    ) -> TotpEnabled:
        if await self._lock(session, account, hash):
            raise Conflict(ON)
        user_id = account.user.id
        pending = select(SECRETS.c.user_id).where(SECRETS.c.user_id == user_id)
        if await session.scalar(pending) is None:
            raise Conflict("There is no secret yet: send the password without `otp`")
        await self.second_factor.use(session, user_id, otp)
        codes = [make_recovery_code() for _ in range(RECOVERY_CODES)]
        digests = [digest_of(user_id, normalize_otp(code)) for code in codes]
        rows = [{"user_id": user_id, "digest": digest} for digest in digests]
        await session.execute(insert(CODES), rows)
        return TotpEnabled(recovery_codes=codes)

    async def _lock(self, session: AsyncSession, account: Account, hash: str) -> bool:
        """Whether the account has a second factor. Raises Conflict where it has changed."""
        this = (User.id == account.user.id) & User.deleted_at.is_(None)
        locked = select(User.totp, User.password_hash).where(this).with_for_update()
        row = (await session.execute(locked)).first()
        if row is None or row.password_hash != hash:
            raise Conflict("The account was changed by another request; try again")
        return bool(row.totp)

    async def _commit(
        self, session: AsyncSession, user_id: int, session_id: int | None = None, *, on: bool
    ) -> None:
        if not on:
            for table in (SECRETS, CODES):
                await session.execute(delete(table).where(table.c.user_id == user_id))
        await session.execute(update(User).where(User.id == user_id).values(totp=on))
        email = await session.scalar(select(User.email).where(User.id == user_id))
        job = SendTotpChanged(email=email, enabled=on)
        await self.outbox.write(session, job, key=f"totp-{secrets.token_hex(16)}")
        event: Event = "totp_enabled" if on else "totp_disabled"
        await self.events.audit(session, event, user_id, session_id)
        async with self.cache.invalidating(f"user:{user_id}"):
            await session.commit()

    @asynccontextmanager
    async def _guessing(
        self, account: Account, throttle: PasswordThrottle
    ) -> AsyncIterator[AsyncSession]:
        """A transaction that uses a code. A wrong one counts as a guess; raises Invalid for it."""
        user = account.user
        async with self.sessions.current() as reading:
            known = select(has_logged_in(throttle.network)).where(User.id == user.id)
            is_known = bool(await reading.scalar(known))
        try:
            async with (
                throttle.guessing_otp(user.email, account=user.id, is_known_network=is_known),
                self.sessions.write() as session,
            ):
                yield session
        except OtpRefused:
            raise Invalid(REFUSED_OTP, ("body", "otp")) from None
