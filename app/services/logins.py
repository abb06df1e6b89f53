import secrets
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.access_tokens import AccessTokens, Claims
from app.cache import Cache
from app.database import Sessions
from app.errors import Unauthorized
from app.idempotency import ALWAYS, Once
from app.models import RefreshToken, User, UserSession
from app.models.base import now
from app.passwords import Passwords
from app.schemas.token import TokensRead
from app.services.transactions import transaction
from app.settings import TokenSettings

REFUSED = "The e-mail address or the password is wrong"
SESSIONS: Any = UserSession.__table__
TOKENS: Any = RefreshToken.__table__
ENDED = "The refresh token is not valid any more; log in"


class Login(NamedTuple):
    tokens: TokensRead
    outdated: bool  # the hash of its password


class LoginService:
    """Sessions, and the tokens they go on with: each refresh token is good once.

    Two tabs of one browser may use it at once: within the overlap after its first use it works
    again. Whatever changes or ends a session locks its row first and its tokens after that.
    """

    def __init__(
        self,
        sessions: Sessions,
        cache: Cache,
        passwords: Passwords,
        tokens: AccessTokens,
        settings: TokenSettings,
    ) -> None:
        self.sessions = sessions
        self.cache = cache
        self.passwords = passwords
        self.tokens = tokens
        self.ttl = timedelta(seconds=settings.refresh_ttl)
        self.session_ttl = timedelta(seconds=settings.session_ttl)
        self.overlap = timedelta(seconds=settings.refresh_overlap)

    @transaction
    async def log_in(self, email: str | None, password: str, once: Once = ALWAYS) -> Login:
        """`email` as `normalize_email` returns it; None stands for what is no address."""
        if email is None:
            await self.passwords.verify(password, None)
            raise Unauthorized(REFUSED)
        once = once.owned_by(email)
        # Between reading a hash and the lock it may have been made anew; a second time is bad luck.
        login = await self._log_in(email, password, once)
        login = login or await self._log_in(email, password, once)
        if login is None:
            raise Unauthorized(REFUSED)
        return login

    async def _log_in(self, email: str, password: str, once: Once) -> Login | None:
        """None where the password was changed meanwhile."""
        found = select(User.id, User.password_hash).where(User.email == email)
        async with self.sessions.current() as reading:
            user = (await reading.execute(found)).first()
        verified = await self.passwords.verify(password, user and user.password_hash)
        if user is None or not verified.matches:
            raise Unauthorized(REFUSED)
        same = (User.id == user.id) & (User.password_hash == user.password_hash)
        async with self.sessions.write() as session:
            if (known := await once.known(session, TokensRead)) is not None:
                return Login(known, outdated=False)
            if await session.scalar(select(User.id).where(same).with_for_update()) is None:
                return None
            values = {"user_id": user.id, "created_at": now()}
            login: Any = await session.execute(insert(SESSIONS), values)
            tokens = await self._tokens(session, user.id, login.inserted_primary_key[0])
            await once.keep(session, tokens)
            await session.commit()
        return Login(tokens, verified.outdated)

    @transaction
    async def rehash(self, email: str, password: str) -> None:
        """Hash it at what that costs now; without it, the next login would."""
        this = User.email == email
        async with self.sessions.current() as reading:
            old = await reading.scalar(select(User.password_hash).where(this))
        verified = await self.passwords.verify(password, old)
        if not verified.matches or not verified.outdated:
            return  # it was changed meanwhile, or another login had it made anew
        values = {"password_hash": await self.passwords.hash(password)}
        async with self.sessions.write() as session:
            same = this & (User.password_hash == old)
            await session.execute(update(User).where(same).values(values))
            await session.commit()

    @transaction
    async def refresh(self, token: str, once: Once = ALWAYS) -> TokensRead:
        digest = _digest(token)
        this = RefreshToken.digest == digest
        once = once.owned_by(digest)
        async with self.sessions.write() as session:
            session_id, user_id, created_at = await self._lock(session, this)
            if created_at + self.session_ttl < now():
                await self._end(session, session_id)
                raise Unauthorized(ENDED)
            # After the lock: what was kept gives no tokens of a session that has ended since.
            if (known := await once.known(session, TokensRead)) is not None:
                return known
            if not await self._use(session, this):
                # Nothing else of this is kept, the key of the request least of all.
                await session.rollback()
                await self._end(session, session_id)
                raise Unauthorized(ENDED)
            tokens = await self._tokens(session, user_id, session_id)
            await once.keep(session, tokens)
            await session.commit()
        return tokens

    async def _lock(
        self, session: AsyncSession, token: ColumnElement[bool]
    ) -> Row[int, int, datetime]:
        """The session of a token, locked, its user and the time of its login. Raises Unauthorized
        where it has ended.
        """
        session_id = await session.scalar(select(RefreshToken.session_id).where(token))
        columns = (UserSession.id, UserSession.user_id, UserSession.created_at)
        own = select(*columns).where(UserSession.id == session_id)
        login = (await session.execute(own.with_for_update())).first()
        if login is None:
            raise Unauthorized(ENDED)
        return login

    async def _use(self, session: AsyncSession, token: ColumnElement[bool]) -> bool:
        """False where it is too old, or was used before: by its owner and by a thief, and nobody
        can say which of them this is. Raises Unauthorized where it has been deleted meanwhile,
        as by a change of the password, which does not end its session.
        """
        times = select(RefreshToken.expires_at, RefreshToken.used_at).where(token)
        found = (await session.execute(times)).first()
        if found is None:
            raise Unauthorized(ENDED)
        if found.expires_at < now():
            return False
        if found.used_at is not None:
            # A host whose clock is ahead of ours may have written it: the age may be negative.
            return bool(self.overlap) and now() - found.used_at <= self.overlap
        await session.execute(update(RefreshToken).where(token).values(used_at=now()))
        return True

    @transaction
    async def log_out(self, session_id: int) -> None:
        async with self.sessions.write() as session:
            await self._end(session, session_id)

    async def _end(self, session: AsyncSession, session_id: int) -> None:
        await session.execute(delete(UserSession).where(UserSession.id == session_id))
        async with self.cache.invalidating(f"session:{session_id}"):
            await session.commit()

    async def _tokens(self, session: AsyncSession, user_id: int, session_id: int) -> TokensRead:
        refresh_token = secrets.token_urlsafe(32)
        values = {
            "digest": _digest(refresh_token),
            "session_id": session_id,
            "expires_at": now() + self.ttl,
        }
        await session.execute(insert(TOKENS), values)
        return TokensRead(
            access_token=self.tokens.issue(Claims(user_id, session_id)),
            expires_in=self.tokens.ttl,
            refresh_token=refresh_token,
        )


def _digest(token: str) -> str:
    """What is kept: it needs no salt, as a token is no word that somebody could guess."""
    return sha256(token.encode()).hexdigest()
