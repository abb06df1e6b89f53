"""A limit in time for the task that enters it."""

import asyncio
from types import TracebackType
from typing import Self

GRACE = 0.01  # s


class Deadline:
    """As asyncio.timeout(), at a third of its cost, as it cannot be moved or asked.

    Ends the block with TimeoutError after so many seconds, unless the task was also cancelled
    by somebody else.
    """

    def __init__(self, seconds: float, task: "asyncio.Task[object] | None" = None) -> None:
        """`task`: the current one, where it is known."""
        self.seconds = seconds
        self.expired = False
        self._task = task

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._task = self._task or asyncio.current_task()
        self._timer = loop.call_later(self.seconds, self._expire)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._timer.cancel()
        task, self._task = self._task, None  # else both would wait for the garbage collector
        if self.expired and task is not None:
            ours_alone = task.uncancel() == 0
            if ours_alone and kind is asyncio.CancelledError:
                raise TimeoutError from error

    def _expire(self) -> None:
        # What has arrived while the event loop was blocked is looked at first.
        self._timer = asyncio.get_running_loop().call_later(GRACE, self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self.expired = True
            self._task.cancel()
