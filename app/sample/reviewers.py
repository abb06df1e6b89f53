from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Review

# A new name invalidates the cached pages of so many reviews; older ones show it when they expire.
MAX_REVIEWED = 500


async def tags_of_reviewer(session: AsyncSession, user_id: int) -> set[str]:
    """Tags of what shows the latest reviews of an account. It is locked, so it can write none."""
    latest = select(Review.book_id).where(Review.user_id == user_id).order_by(Review.id.desc())
    return {f"reviews:{id}" for id in await session.scalars(latest.limit(MAX_REVIEWED))}
