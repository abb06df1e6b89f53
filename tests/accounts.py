"""Accounts for tests that are about something else: made in the database, without a login."""

import secrets

from sqlalchemy.ext.asyncio import AsyncSession

from app.about import NAME
from app.models import User, UserSession
from app.schemas.user import Role
from chassis.auth.access_tokens import AccessTokens, Claims
from chassis.auth.settings import TokenSettings
from chassis.database.engines import create_engine
from chassis.database.settings import DatabaseSettings
from chassis.resources import Resources

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
    return (tokens or AccessTokens(TokenSettings(audience=NAME, key=KEY))).issue(
        Claims(user.id, login.id)
    )


async def account_headers(role: Role, resources: Resources) -> dict[str, str]:
    """Those of a new account's requests."""
    async with resources["sessions"].write() as session:
        token = await add_account(session, role, resources["access_tokens"])
    return {"Authorization": f"Bearer {token}"}


async def editors_token(database_url: str) -> str:
    engine = create_engine(DatabaseSettings(url=database_url), "maintenance")
    try:
        async with AsyncSession(engine, expire_on_commit=False) as session:
            return await add_account(session, Role.EDITOR)
    finally:
        await engine.dispose()
