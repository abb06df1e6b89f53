import asyncio
from types import TracebackType
from typing import Self

GRACE = 0.01  # s


class Timeout:
    """As asyncio.timeout() at a third of its cost, without rescheduling.

    Cancels the current task after `seconds`, and raises TimeoutError where the block ends, unless
    the task was also cancelled from elsewhere.
    """

    def __init__(self, seconds: float, task: "asyncio.Task[object] | None" = None) -> None:
        """`task`: the current one, to save looking it up."""
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
        task, self._task = self._task, None  # breaks a reference cycle
        if self.expired and task is not None:
            no_other_cancellation = task.uncancel() == 0
            if no_other_cancellation and kind is asyncio.CancelledError:
                raise TimeoutError from error

    def _expire(self) -> None:
        # If the event loop was blocked, I/O that has arrived meanwhile is handled first.
        self._timer = asyncio.get_running_loop().call_later(GRACE, self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self.expired = True
            self._task.cancel()
