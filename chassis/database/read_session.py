import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, cast

from sqlalchemy import Engine, Executable, Result, Select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.util import greenlet_spawn

from chassis.database.driver_query import DriverQuery, compile_query
from chassis.database.replica import Replica
from chassis.database.timing import TimedPool

# After one of these, the replica is not used until checks succeed.
UNREACHABLE = {1040, 1045, 1053, 1129, 1130, 1203, 1927, 2002, 2003, 2006, 2013}
STATEMENT_TIMEOUT = 1969  # the statement would be as slow on the primary

Rows = Sequence[Sequence[Any]]
T = TypeVar("T")


class NeedsSession(Exception):
    """Only SQLAlchemy can execute this statement, or report why it fails."""


async def read_rows(
    session: AsyncSession, statement: Select[Any], parameters: Mapping[str, Any]
) -> Rows:
    """The rows of a SELECT, as `session.execute` returns them, at a fourth of its cost.

    For what is read most. `statement` is compiled once: make it a constant, or cache it.
    """
    if isinstance(session, ReadSession):
        return await session.rows(statement, parameters)
    result: Result[Any] = await session.execute(statement, parameters)
    return result.all()


class ReadSession(AsyncSession):
    """For reads only: its engine commits each statement and refuses writes.

    `execute`, `scalar`, `scalars` and `rows` are repeated once if their connection is lost.
    """

    async def __aexit__(self, *error: Any) -> None:
        if self.in_transaction():  # else there is nothing to close
            await super().__aexit__(*error)

    async def rows(self, statement: Select[Any], parameters: Mapping[str, Any]) -> Rows:
        """See `read_rows`. It takes a connection for this one statement."""
        return await self._read(partial(self._rows, statement, parameters))

    async def _rows(self, statement: Select[Any], parameters: Mapping[str, Any]) -> Rows:
        engine = cast(Engine, self.sync_session.bind)
        watched = engine._has_events or engine.logger.isEnabledFor(logging.INFO)
        if not (self.in_transaction() or watched):  # in a transaction: it has a connection
            try:
                return await _fetch(engine, compile_query(statement, engine.dialect), parameters)
            except NeedsSession:
                pass
        result: Result[Any] = await super().execute(statement, parameters)
        return result.all()

    async def execute(self, statement: Executable, *args: Any, **kwargs: Any) -> Result[Any]:
        return await self._read(partial(super().execute, statement, *args, **kwargs))

    async def scalar(self, statement: Executable, *args: Any, **kwargs: Any) -> Any:
        return await self._read(partial(super().scalar, statement, *args, **kwargs))

    async def _read(self, read: Callable[[], Awaitable[T]]) -> T:
        try:
            return await read()
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            # A read changes nothing, so it may be repeated.
            await self.rollback()
            return await read()


class ReplicaSession(ReadSession):
    """Reads from the replica; after a failure the rest of the session uses the primary."""

    def __init__(
        self, bind: AsyncEngine, replica: Replica, primary: AsyncEngine, **options: Any
    ) -> None:
        super().__init__(bind, **options)
        self._replica: Replica | None = replica
        self._primary = primary

    async def _read(self, read: Callable[[], Awaitable[T]]) -> T:
        replica = self._replica
        if replica is None:
            return await super()._read(read)
        try:
            return await replica.run(read)
        except (DBAPIError, TimeoutError) as error:
            code = next(iter(getattr(getattr(error, "orig", None), "args", ())), None)
            if code == STATEMENT_TIMEOUT:
                raise
            is_lost = not isinstance(error, DBAPIError) or error.connection_invalidated
            if is_lost or code in UNREACHABLE:
                replica.put_aside("unavailable", error)
        await self.rollback()
        self._replica, self.sync_session.bind = None, self._primary.sync_engine
        return await super()._read(read)


async def _fetch(engine: Engine, query: DriverQuery, parameters: Mapping[str, Any]) -> Rows:
    """Raises NeedsSession, and DBAPIError as SQLAlchemy does."""
    dialect, pool = engine.dialect, cast(TimedPool, engine.pool)
    try:
        arguments = query.arguments(parameters)
    except ValueError as error:
        raise NeedsSession from error
    connection = await greenlet_spawn(pool.connect)
    try:
        with pool.timed(query.text):
            async with cast(Any, connection.driver_connection).cursor() as cursor:
                await cursor.execute(query.text, arguments)
                rows = await cursor.fetchall()
    except (ValueError, OverflowError) as error:  # the driver refuses an argument
        connection.close()
        raise NeedsSession from error
    except dialect.loaded_dbapi.Error as error:
        if dialect.is_disconnect(error, connection, None):
            connection.invalidate(error)
            raise NeedsSession from error
        connection.close()
        raise DBAPIError.instance(
            query.text, arguments, error, dialect.loaded_dbapi.Error, engine.hide_parameters
        ) from error
    except BaseException:  # such as a cancellation: the reply may still come
        connection.invalidate()
        raise
    connection.close()  # returns it to the pool
    return query.convert(rows)
