from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Sessions
from app.models import KeptAnswer, RefreshToken, UserSession
from app.models.base import now
from app.services.transactions import transaction
from app.settings import TokenSettings

BATCH = 1000  # rows of a transaction: others do not wait long for it
SESSIONS = 100  # the same for sessions, each of which takes some statements


class CleaningService:
    """Deletes what has expired; until then it is there and does not count."""

    def __init__(self, sessions: Sessions, settings: TokenSettings) -> None:
        self.sessions = sessions
        self.session_ttl = timedelta(seconds=settings.session_ttl)

    async def clean(self) -> None:
        while await self._clean_answers() == BATCH:
            pass
        while await self._clean_sessions() == SESSIONS:
            pass
        while await self._clean_old_sessions() == SESSIONS:
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
        some = select(RefreshToken.session_id).where(RefreshToken.expires_at < now()).distinct()
        async with self.sessions.write() as session:
            ids = sorted(await session.scalars(some.limit(SESSIONS)))
            for session_id in ids:
                await self._clean_session(session, session_id)
            await session.commit()
        return len(ids)

    @transaction
    async def _clean_old_sessions(self) -> int:
        """Past their last day, also those of which a change of the password left no token."""
        old = select(UserSession.id).where(UserSession.created_at < now() - self.session_ttl)
        async with self.sessions.write() as session:
            ids = sorted(await session.scalars(old.limit(SESSIONS)))
            for session_id in ids:
                await session.execute(delete(UserSession).where(UserSession.id == session_id))
            await session.commit()
        return len(ids)

    async def _clean_session(self, session: AsyncSession, session_id: int) -> None:
        """Lock it before its tokens, as logins do, and each row by its key: a statement for many
        may read the whole table, and then MariaDB locks rows that it does not delete.
        """
        this = UserSession.id == session_id
        await session.execute(select(UserSession.id).where(this).with_for_update())
        tokens = select(RefreshToken.digest, RefreshToken.expires_at)
        own = (await session.execute(tokens.where(RefreshToken.session_id == session_id))).all()
        expired = [token.digest for token in own if token.expires_at < now()]
        if len(expired) == len(own):
            await session.execute(delete(UserSession).where(this))
            return
        for digest in expired:
            await session.execute(delete(RefreshToken).where(RefreshToken.digest == digest))
