import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class SingleFlight:
    """`run` executes `work` once for all concurrent callers with the same key.

    All of them get its result or its exception. If the caller that executes it is cancelled, the
    next one starts `work` again. https://pkg.go.dev/golang.org/x/sync/singleflight
    """

    def __init__(self) -> None:
        self._flights: dict[Hashable, asyncio.Future[Any]] = {}

    async def run(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        while (flight := self._flights.get(key)) is not None:
            await asyncio.wait([flight])  # cancelled, this leaves the flight alone
            if not flight.cancelled():
                return flight.result()  # type: ignore[no-any-return]
        flight = self._flights[key] = asyncio.get_running_loop().create_future()
        try:
            result = await work()
        except Exception as error:
            flight.set_exception(error)
            flight.exception()  # marks it as retrieved, also where no other caller waits
            raise
        except BaseException:
            flight.cancel()
            raise
        else:
            flight.set_result(result)
            return result
        finally:
            del self._flights[key], flight  # its traceback refers to this frame: breaks the cycle
