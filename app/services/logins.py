import secrets
from datetime import timedelta
from hashlib import sha256
from typing import Any, NamedTuple

from sqlalchemy import delete, insert, select, update
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

REFUSED = "The e-mail address or the password is wrong"
SESSIONS: Any = UserSession.__table__
TOKENS: Any = RefreshToken.__table__
ENDED = "The refresh token is not valid any more; log in"


class Login(NamedTuple):
    tokens: TokensRead
    outdated: bool  # the hash of its password


class LoginService:
    """Sessions, and the tokens they go on with: each refresh token is good once."""

    def __init__(
        self, sessions: Sessions, cache: Cache, passwords: Passwords, tokens: AccessTokens, ttl: int
    ) -> None:
        """`ttl`: how long a session goes on that nobody refreshes, s."""
        self.sessions = sessions
        self.cache = cache
        self.passwords = passwords
        self.tokens = tokens
        self.ttl = timedelta(seconds=ttl)

    @transaction
    async def log_in(self, email: str, password: str, once: Once = ALWAYS) -> Login:
        once = once.owned_by(email)
        # Between reading a hash and the lock it may have been made anew; a second time is bad luck.
        login = await self._log_in(email, password, once)
        login = login or await self._log_in(email, password, once)
        if login is None:
            raise Unauthorized(REFUSED)
        return login

    async def _log_in(self, email: str, password: str, once: Once) -> Login | None:
        """None where the password was changed meanwhile."""
        found = select(User.id, User.password_hash).where(User.email == email.lower())
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
        this = User.email == email.lower()
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
            if (known := await once.known(session, TokensRead)) is not None:
                return known
            # First of all, so that of two who come at once one finds it used.
            unused = this & RefreshToken.used_at.is_(None)
            used = await session.execute(update(RefreshToken).where(unused).values(used_at=now()))
            owner = (
                select(UserSession.id, UserSession.user_id, RefreshToken.expires_at)
                .join(RefreshToken, RefreshToken.session_id == UserSession.id)
                .where(this)
            )
            login = (await session.execute(owner)).first()
            if login is None:
                raise Unauthorized(ENDED)
            if not used.rowcount or login.expires_at < now():  # type: ignore[attr-defined]
                # Too old, or used twice: by its owner and by a thief, and nobody can say which of
                # them this is. Nothing else of this is kept, the key of the request least of all.
                await session.rollback()
                await self._end(session, login.id)
                raise Unauthorized(ENDED)
            tokens = await self._tokens(session, login.user_id, login.id)
            await once.keep(session, tokens)
            await session.commit()
        return tokens

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
