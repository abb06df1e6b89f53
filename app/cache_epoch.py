"""What the database remembers for the cache: that an invalidation could not reach Redis."""

from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError

from app.database import Sessions
from app.errors import Overloaded
from app.models import CacheEpoch
from app.request_context import current_request

ROW = CacheEpoch.id == 1
READ = select(CacheEpoch.number).where(ROW)
ADVANCE = update(CacheEpoch).where(ROW).values(number=CacheEpoch.number + 1)


class EpochUnknown(Exception):
    """The database did not tell, or did not take it, whatever the reason."""


class Epoch:
    """A number that grows whenever Redis was away for a write, or only seemed to be.

    Redis may come back with what it held before, and then no other worker knows what has changed
    meanwhile. They all know the database.
    """

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions

    async def read(self) -> int:
        """Of the primary database: a replica may not know yet. Raises EpochUnknown."""
        try:
            async with self.sessions.current() as session:
                number: int = (await session.execute(READ)).scalar_one()
        except (SQLAlchemyError, OSError, Overloaded) as error:
            raise EpochUnknown(getattr(error, "orig", error)) from error
        return number

    async def advance(self) -> None:
        """Raises EpochUnknown."""
        # Its commit is not what a client asks for, and says nothing of the client's own.
        outer = current_request.set(None)
        try:
            async with self.sessions.write.begin() as session:
                await session.execute(ADVANCE)
        except (SQLAlchemyError, OSError, Overloaded) as error:
            raise EpochUnknown(getattr(error, "orig", error)) from error
        finally:
            current_request.reset(outer)
