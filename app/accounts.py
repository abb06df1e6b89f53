"""Accounts by hand: what operators do from the command line."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.resources import Resources, open_resources
from app.schemas.user import Role, UserCreate, UserRead
from app.services.users import UserService
from app.settings import Settings


async def create_user(
    settings: Settings, body: UserCreate, role: Role, *, any_password: bool = False
) -> UserRead:
    """Raises Conflict where there is such an account, Invalid for a weak password."""
    async with _open_users(settings) as users:
        return await users.create(body, role, any_password=any_password)


async def set_role(settings: Settings, email: str, role: Role) -> None:
    """`email` as `normalize_email` returns it. Raises NotFound where it has no account."""
    async with _open_users(settings) as users:
        await users.set_role(email, role)


@asynccontextmanager
async def _open_users(settings: Settings) -> AsyncIterator[UserService]:
    async with open_resources(settings) as resources:
        yield users_of(resources)


def users_of(resources: Resources) -> UserService:
    return UserService(
        resources["sessions"], resources["cache"], resources["passwords"], resources["outbox"]
    )
