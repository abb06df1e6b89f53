"""One place for what the database undoes: the transaction is run again, as a whole."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import is_undone

REPEATS = 3
PAUSE = 0.02  # s; at most, before the first repetition; it doubles

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("app.services")


def transaction(work: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Mark what is one transaction: it commits once, as its last step but for what cannot fail.

    Where the database undoes it to end a deadlock, it is run again, up to three times. So until its
    commit it may change nothing but the database. A session that it was given (`self.session`,
    or the first argument) is emptied before.
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
            # Those that have met come back at different times.
            await asyncio.sleep(PAUSE * 2**repeat * random.random())  # noqa: S311
        return await work(*args, **kwargs)

    return run


def _session_of(owner: object) -> AsyncSession | None:
    found = getattr(owner, "session", owner)
    return found if isinstance(found, AsyncSession) else None
