"""Of those who want the same at the same time one works for it, and all have what comes of it."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class SingleFlight:
    def __init__(self) -> None:
        self._flights: dict[Hashable, asyncio.Future[Any]] = {}

    async def run(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` gives or raises, for all who wait. If the one who works is cancelled, the
        next one does it.
        """
        while (flight := self._flights.get(key)) is not None:
            await asyncio.wait([flight])  # to await the flight itself would be to cancel it too
            if not flight.cancelled():
                return flight.result()  # type: ignore[no-any-return]
        flight = self._flights[key] = asyncio.get_running_loop().create_future()
        try:
            result = await work()
        except Exception as error:
            flight.set_exception(error)
            flight.exception()  # it may be that nobody waits
            raise
        except BaseException:
            flight.cancel()
            raise
        else:
            flight.set_result(result)
            return result
        finally:
            del self._flights[key]
