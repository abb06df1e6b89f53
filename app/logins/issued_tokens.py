import secrets
from datetime import timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import RefreshToken
from app.schemas.token import TokensRead
from chassis.auth.access_tokens import Claims
from chassis.clock import now
from chassis.resources import Resources

TOKENS: Any = RefreshToken.__table__


class TokenIssuer:
    """Gives a session its tokens, of which the digest of the refresh token is stored."""

    def __init__(self, resources: Resources) -> None:
        self.access_tokens = resources["access_tokens"]
        self.ttl = timedelta(seconds=resources["settings"].tokens.refresh_ttl)

    async def issue(self, session: AsyncSession, claims: Claims) -> TokensRead:
        refresh_token = secrets.token_urlsafe(32)
        values = {
            "digest": digest_of(refresh_token),
            "session_id": claims.session_id,
            "expires_at": now() + self.ttl,
        }
        await session.execute(insert(TOKENS), values)
        return TokensRead(
            access_token=self.access_tokens.issue(claims),
            expires_in=self.access_tokens.ttl,
            refresh_token=refresh_token,
        )


def digest_of(token: str) -> str:
    """Without salt: a token is random, so its digest cannot be looked up."""
    return sha256(token.encode()).hexdigest()
