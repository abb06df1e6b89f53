"""There is always an account that can give others their roles."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import User
from app.schemas.user import Role
from chassis.errors import Conflict


async def lock_admins(session: AsyncSession) -> Sequence[int]:
    """Those that can log in. Call it first of all in a transaction that may make them fewer."""
    admins = select(User.id).where(User.role == Role.ADMIN, User.disabled_at.is_(None))
    return (await session.scalars(admins.with_for_update())).all()


def refuse_last_admin(admins: Sequence[int], user_id: int) -> None:
    """Raises Conflict where `admins`, which are locked, are this account alone."""
    if [*admins] == [user_id]:
        raise Conflict("This is the last administrator; give another account that role first")
