from collections.abc import Sequence
from contextlib import nullcontext, suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.logins.devices import device_of_request
from app.logins.issued_tokens import TokenIssuer, digest_of
from app.logins.login_hash import login_hash
from app.logins.networks import has_logged_in, record_network
from app.logins.password_throttle import PasswordThrottle
from app.logins.refusals import OtpRequired, PasswordChanged, TokenRefused
from app.logins.second_factor import SecondFactor
from app.logins.session_limit import end_oldest
from app.models import RefreshToken, User, UserSession
from app.models.user import new_session_id
from app.schemas.token import TokensRead
from app.settings import settings_of
from chassis.auth.access_tokens import Claims
from chassis.clock import now
from chassis.database.transactions import retry_on_deadlock
from chassis.errors import Forbidden, Unauthorized
from chassis.idempotency.requests import NO_KEY, IdempotentRequest
from chassis.resources import Resources

REFUSED = "The e-mail address or the password is wrong"
MAYBE_UNVERIFIED = f"{REFUSED}, or the address is not verified"
ENDED = "The refresh token is no longer valid; log in"
SESSIONS: Any = UserSession.__table__


class Login(NamedTuple):
    tokens: TokensRead
    outdated: bool  # the hash of its password


class LoginService:
    """Sessions and their refresh tokens, which are good for one use each (token rotation).

    Two tabs of one browser may use a token at once: for TOKENS_REFRESH_OVERLAP after its first use
    it works again. A change to a session locks its row first and its tokens after that.
    """

    def __init__(self, resources: Resources) -> None:
        self.sessions = resources["sessions"]
        self.cache = resources["cache"]
        self.passwords = resources["passwords"]
        self.issuer = TokenIssuer(resources)
        self.second_factor = SecondFactor(resources)
        self.events = resources["security"]
        settings = resources["settings"].tokens
        self.verify = settings_of(resources).users.verify
        self.max_sessions = settings.max_sessions
        self.session_ttl = timedelta(seconds=settings.session_ttl)
        self.overlap = timedelta(seconds=settings.refresh_overlap)

    @retry_on_deadlock
    async def log_in(
        self,
        email: str | None,
        password: str,
        otp: str | None,
        throttle: PasswordThrottle,
        idempotent: IdempotentRequest = NO_KEY,
    ) -> Login:
        """`email` as `normalize_email` returns it; None stands for what is not an address, which
        has no limit of its own: it opens no account, and could be anything. `otp` as
        `normalize_otp` returns it; accounts without a second factor ignore it.
        """
        if email is None:
            await self.passwords.verify(password, None)
            raise self._refused()
        for _ in range(2):  # another login may rehash the password between verifying and locking
            with suppress(PasswordChanged):
                own = idempotent.owned_by(email)
                return await self._log_in(email, password, otp, throttle, own)
        raise self._refused()

    def _refused(self, account: int | None = None) -> Unauthorized:
        self.events.record("login_failed", account)
        return Unauthorized(MAYBE_UNVERIFIED if self.verify else REFUSED)

    def _refuse_disabled(self, user_id: int, disabled_at: datetime | None) -> None:
        """Call it after the password: only its owner is told."""
        if disabled_at is not None:
            self.events.record("login_failed", user_id, reason="disabled")
            raise Forbidden("This account is disabled; ask an administrator")

    async def _log_in(
        self,
        email: str,
        password: str,
        otp: str | None,
        throttle: PasswordThrottle,
        idempotent: IdempotentRequest,
    ) -> Login:
        known = has_logged_in(throttle.network)
        columns = (User.id, login_hash(self.verify), User.disabled_at, known)
        async with self.sessions.current() as reading:
            user = (await reading.execute(select(*columns).where(User.email == email))).first()
        is_known = bool(user and user.has_logged_in)
        hash, account = user and user.password_hash, user and user.id
        verified = await throttle.verify(
            email, password, hash, account=account, is_known_network=is_known
        )
        if user is None or not verified.matches:
            raise self._refused(account)
        self._refuse_disabled(user.id, user.disabled_at)
        guessing = throttle.guessing_otp(email, account=user.id, is_known_network=is_known)
        async with nullcontext() if otp is None else guessing:
            tokens, is_new = await self._open(user, otp, throttle.network, idempotent)
        return Login(tokens, verified.outdated and is_new)

    async def _open(
        self, user: Row[Any], otp: str | None, network: str, idempotent: IdempotentRequest
    ) -> tuple[TokensRead, bool]:
        session_id = new_session_id()
        async with self.sessions.write() as session:
            work = partial(self._insert, session, user, otp, session_id, network)
            tokens, is_new = await idempotent.run(session, TokensRead, work)
            if not is_new:
                return tokens, is_new
            await self.events.audit(session, "login", user.id, session_id)
            ended = await end_oldest(session, user.id, self.max_sessions, latest=session_id)
            for each in ended:
                await self.events.audit(session, "session_ended", user.id, each, reason="too many")
            await self._commit(session, ended)
        return tokens, is_new

    async def _insert(
        self, session: AsyncSession, user: Row[Any], otp: str | None, session_id: int, network: str
    ) -> TokensRead:
        same = (User.id == user.id) & (User.password_hash == user.password_hash)
        locked = select(User.disabled_at, User.totp).where(same).with_for_update()
        if (row := (await session.execute(locked)).first()) is None:
            raise PasswordChanged
        self._refuse_disabled(user.id, row.disabled_at)
        if row.totp:
            if otp is None:
                raise OtpRequired
            await self.second_factor.use(session, user.id, otp)
        await record_network(session, user.id, network)
        values = {"id": session_id, "user_id": user.id, **device_of_request()}
        await session.execute(insert(SESSIONS).values(values))
        return await self.issuer.issue(session, Claims(user.id, session_id))

    @retry_on_deadlock
    async def refresh(self, token: str, idempotent: IdempotentRequest = NO_KEY) -> TokensRead:
        digest = digest_of(token)
        async with self.sessions.write() as session:
            login = await self._lock(session, digest)
            work = partial(self._rotate, session, digest, Claims(login.user_id, login.id))
            try:
                if login.created_at + self.session_ttl < now():
                    raise TokenRefused("expired")
                # After the lock: a session that has ended gives no recorded tokens.
                tokens, _ = await idempotent.owned_by(digest).run(session, TokensRead, work)
            except TokenRefused as refused:
                await session.rollback()  # the key above all: an error is not recorded
                await self._end(session, login.user_id, login.id, refused.reason)
                raise self._ended(login, reused=refused.reason == "reused") from None
            await session.commit()
        return tokens

    async def _lock(self, session: AsyncSession, digest: str) -> Row[int, int, datetime]:
        """The session of a token, locked. Raises Unauthorized where it has ended."""
        token = select(RefreshToken.session_id).where(RefreshToken.digest == digest)
        session_id = await session.scalar(token)
        columns = (UserSession.id, UserSession.user_id, UserSession.created_at)
        own = select(*columns).where(UserSession.id == session_id)
        login = (await session.execute(own.with_for_update())).first()
        if login is None:
            raise self._ended()
        return login

    def _ended(self, login: Any = None, *, reused: bool = False) -> Unauthorized:
        ids = () if login is None else (login.user_id, login.id)
        self.events.record("token_reused" if reused else "refresh_refused", *ids)
        return Unauthorized(ENDED)

    async def _rotate(self, session: AsyncSession, digest: str, claims: Claims) -> TokensRead:
        """Use the token, and return new ones. Raises TokenRefused; Unauthorized where it has been
        deleted, as by a change of the password, which does not end this session.
        """
        this = RefreshToken.digest == digest
        times = select(RefreshToken.expires_at, RefreshToken.used_at).where(this)
        found = (await session.execute(times)).first()
        if found is None:
            raise self._ended()
        if found.expires_at < now():
            raise TokenRefused("expired")
        if found.used_at is None:
            await session.execute(update(RefreshToken).where(this).values(used_at=now()))
        # The clock of the host that has written it may be ahead: the age may be negative.
        elif not self.overlap or now() - found.used_at > self.overlap:
            raise TokenRefused("reused")
        this_session = UserSession.id == claims.session_id
        await session.execute(update(UserSession).where(this_session).values(used_at=now()))
        return await self.issuer.issue(session, claims)

    async def _end(self, session: AsyncSession, user_id: int, session_id: int, reason: str) -> None:
        await session.execute(delete(UserSession).where(UserSession.id == session_id))
        await self.events.audit(session, "session_ended", user_id, session_id, reason=reason)
        await self._commit(session, [session_id])

    async def _commit(self, session: AsyncSession, ended: Sequence[int]) -> None:
        if not ended:
            return await session.commit()
        async with self.cache.invalidating(*(f"session:{session_id}" for session_id in ended)):
            await session.commit()
