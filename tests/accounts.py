"""Accounts for tests that are about something else: made in the database, without a login."""

import secrets

from sqlalchemy.ext.asyncio import AsyncSession

from app.access_tokens import AccessTokens, Claims
from app.database import create_engine
from app.models import User, UserSession
from app.schemas.user import Role
from app.settings import DatabaseSettings, TokenSettings

KEY = "a key of services that tests start"


async def add_account(session: AsyncSession, role: Role, tokens: AccessTokens | None = None) -> str:
    """An access token of a new account, good for services with these tokens, else with `KEY`."""
    name = f"{role}-{secrets.token_hex(4)}"
    user = User(email=f"{name}@example.com", name=name, password_hash="", role=role)
    session.add(user)
    await session.flush()
    login = UserSession(user_id=user.id)
    session.add(login)
    await session.commit()
    return (tokens or AccessTokens(TokenSettings(key=KEY))).issue(Claims(user.id, login.id))


async def editors_token(database_url: str) -> str:
    engine = create_engine(DatabaseSettings(url=database_url), "maintenance")
    try:
        async with AsyncSession(engine, expire_on_commit=False) as session:
            return await add_account(session, Role.EDITOR)
    finally:
        await engine.dispose()
