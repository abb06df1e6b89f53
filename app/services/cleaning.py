from sqlalchemy import delete, select

from app.database import Sessions
from app.models import KeptAnswer, RefreshToken, UserSession
from app.models.base import now
from app.services.transactions import transaction

BATCH = 1000  # rows of a transaction: others do not wait long for it


class CleaningService:
    """Deletes what has expired; until then it is there and does not count."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions

    async def clean(self) -> None:
        while await self._clean_answers() == BATCH:
            pass
        while await self._clean_sessions() == BATCH:
            pass

    @transaction
    async def _clean_answers(self) -> int:
        expired = KeptAnswer.expires_at < now()
        some = select(KeptAnswer.digest).where(expired).limit(BATCH)
        async with self.sessions.write() as session:
            digests = (await session.scalars(some)).all()
            # Asked again: one of them may have been renewed meanwhile.
            those = KeptAnswer.digest.in_(digests) & expired
            await session.execute(delete(KeptAnswer).where(those))
            await session.commit()
        return len(digests)

    @transaction
    async def _clean_sessions(self) -> int:
        """Refresh tokens, and sessions of which none is left: they cannot go on."""
        some = select(RefreshToken.digest, RefreshToken.session_id)
        some = some.where(RefreshToken.expires_at < now()).limit(BATCH)
        async with self.sessions.write() as session:
            rows = (await session.execute(some)).all()
            digests, ids = [row.digest for row in rows], {row.session_id for row in rows}
            await session.execute(delete(RefreshToken).where(RefreshToken.digest.in_(digests)))
            left = select(RefreshToken.session_id).where(RefreshToken.session_id.in_(ids))
            over = UserSession.id.in_(ids.difference(await session.scalars(left)))
            await session.execute(delete(UserSession).where(over))
            await session.commit()
        return len(rows)
