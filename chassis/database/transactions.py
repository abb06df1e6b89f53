"""Repeats transactions that the database rolls back to end a deadlock."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.database.errors import is_undone

REPEATS = 3
PAUSE = 0.02  # s; longest wait before the first repetition; it doubles

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("app.services")


def retry_on_deadlock(work: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Repeat a function that is one transaction, up to three times, after a deadlock.

    It neither begins nor commits: the function does, and before its one commit it changes nothing
    but the database, as after it nothing fails. Its session (`self.session` or the first
    argument) is reset before each repetition.
    """

    @wraps(work)
    async def run(*args: P.args, **kwargs: P.kwargs) -> T:
        for repeat in range(REPEATS):
            try:
                return await work(*args, **kwargs)
            except DBAPIError as error:
                if not is_undone(error.orig):
                    raise
                log.info("%s is repeated, as a deadlock was ended by undoing it", work.__qualname__)
                if (session := _session_of(args[0] if args else None)) is not None:
                    await session.reset()
            # Jitter: transactions that collided shall not do so again.
            await asyncio.sleep(PAUSE * 2**repeat * random.random())  # noqa: S311
        return await work(*args, **kwargs)

    return run


def _session_of(owner: object) -> AsyncSession | None:
    found = getattr(owner, "session", owner)
    return found if isinstance(found, AsyncSession) else None
