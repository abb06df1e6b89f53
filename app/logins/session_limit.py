from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import UserSession

MAX_ENDED = 100  # sessions that one transaction ends, so that it is short


async def end_oldest(
    session: AsyncSession, user_id: int, max_sessions: int, latest: int
) -> Sequence[int]:
    """Delete the oldest sessions of an account, and return their ids.

    The caller has locked the account's row, and invalidates those sessions. `latest` stays, even
    if the clocks of hosts differ.
    """
    others = (UserSession.user_id == user_id) & (UserSession.id != latest)
    newest = select(UserSession.id).where(others).order_by(UserSession.created_at.desc())
    extra = newest.order_by(UserSession.id).offset(max_sessions - 1).limit(MAX_ENDED)
    ended = sorted(await session.scalars(extra))
    for session_id in ended:  # each by its key, so that no other row is locked
        await session.execute(delete(UserSession).where(UserSession.id == session_id))
    return ended
