"""Sessions that only read, on the primary or on a replica."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Executable, Result
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from app.replica import Replica

# A replica that answers with one of these is not asked again before a check has found it well.
UNREACHABLE = {1040, 1045, 1053, 1129, 1130, 1203, 1927, 2002, 2003, 2006, 2013}
STATEMENT_TIMEOUT = 1969  # the statement is what is slow: on the primary it would be, too

T = TypeVar("T")


class ReadSession(AsyncSession):
    """For reads only: the engine behind it commits each statement and refuses to write.

    `execute`, `scalar` and `scalars` ask once more when their connection has died.
    """

    async def execute(self, statement: Executable, *args: Any, **kwargs: Any) -> Result[Any]:
        return await self._read(partial(super().execute, statement, *args, **kwargs))

    async def scalar(self, statement: Executable, *args: Any, **kwargs: Any) -> Any:
        return await self._read(partial(super().scalar, statement, *args, **kwargs))

    async def _read(self, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            return await ask()
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            # The connection died under us. A read changes nothing, so ask again, once.
            await self.rollback()
            return await ask()


class ReplicaSession(ReadSession):
    """Reads from the replica; from its first failure on, in the same session, from the primary."""

    def __init__(
        self, bind: AsyncEngine, replica: Replica, primary: AsyncEngine, **options: Any
    ) -> None:
        super().__init__(bind, **options)
        self._replica: Replica | None = replica
        self._primary = primary

    async def _read(self, ask: Callable[[], Awaitable[T]]) -> T:
        replica = self._replica
        if replica is None:
            return await super()._read(ask)
        try:
            return await replica.ask(ask)
        except (DBAPIError, TimeoutError) as error:
            if _code(error) == STATEMENT_TIMEOUT:
                raise
            if not isinstance(error, DBAPIError) or _is_unreachable(error):
                replica.put_aside("unavailable", error)
        await self.rollback()
        self._replica, self.sync_session.bind = None, self._primary.sync_engine
        return await super()._read(ask)


def _code(error: BaseException) -> object:
    return next(iter(getattr(getattr(error, "orig", None), "args", ())), None)


def _is_unreachable(error: DBAPIError) -> bool:
    return error.connection_invalidated or _code(error) in UNREACHABLE
