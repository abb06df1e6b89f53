"""The epoch: a number in the database that invalidates the whole cache when it grows."""

from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError

from chassis.cache.model import CacheEpoch
from chassis.database.engines import Sessions, reason_of
from chassis.errors import Overloaded
from chassis.request_context import current_request

ROW = CacheEpoch.id == 1
READ = select(CacheEpoch.number).where(ROW)
ADVANCE = update(CacheEpoch).where(ROW).values(number=CacheEpoch.number + 1)


class EpochUnknown(Exception):
    """The database could not read or write the epoch."""


class Epoch:
    """The fallback for an invalidation that does not reach Redis.

    Such a write advances a number in the database instead. Every entry is stored with the epoch,
    and each worker reads it every second and after each connect, so entries of before no longer
    count, even if Redis comes back with its old data. See docs/caching.md.
    """

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions

    async def read(self) -> int:
        """From the primary database, as a replica may lag. Raises EpochUnknown."""
        try:
            async with self.sessions.current() as session:
                number: int = (await session.execute(READ)).scalar_one()
        except (SQLAlchemyError, OSError, Overloaded) as error:
            raise EpochUnknown(reason_of(error)) from error
        return number

    async def advance(self) -> None:
        """Raises EpochUnknown."""
        # This commit is not the request's own: it must not change `RequestContext.commit`.
        outer = current_request.set(None)
        try:
            async with self.sessions.write.begin() as session:
                await session.execute(ADVANCE)
        except (SQLAlchemyError, OSError, Overloaded) as error:
            raise EpochUnknown(reason_of(error)) from error
        finally:
            current_request.reset(outer)
