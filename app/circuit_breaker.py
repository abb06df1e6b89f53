"""A server that fails again and again is left alone for a while, then asked once.

https://martinfowler.com/bliki/CircuitBreaker.html
"""

import time
from collections.abc import Callable
from typing import Literal

State = Literal["closed", "open", "half-open"]


class CircuitBreaker:
    """`enter` before each attempt, then one of `succeeded`, `failed` and `left` with what it gave.

    What is said of attempts that began before the state last changed does not count.
    """

    def __init__(
        self, failures: int, open_for: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`failures` in a row open it, for `open_for` s."""
        self.failures = failures
        self.open_for = open_for
        self.state: State = "closed"
        self._clock = clock
        self._turn = 0
        self._failed = 0
        self._opened_at = 0.0

    def enter(self) -> int | None:
        """None: leave the server alone. While it is half open, one attempt finds out for all."""
        if self.state == "closed":
            return self._turn
        if self.state == "half-open" or self._clock() < self._opened_at + self.open_for:
            return None
        self._become("half-open")
        return self._turn

    def succeeded(self, turn: int) -> None:
        if turn == self._turn:
            self._failed = 0
            if self.state != "closed":
                self._become("closed")

    def failed(self, turn: int) -> None:
        if turn == self._turn:
            self._failed += 1
            if self.state != "closed" or self._failed >= self.failures:
                self._opened_at = self._clock()
                self._become("open")

    def left(self, turn: int) -> None:
        """Nothing is known: whoever asked did not wait for the answer, or did not get to ask."""
        if turn == self._turn and self.state == "half-open":
            self._become("open")  # whose time is over, so that the next one may try

    def _become(self, state: State) -> None:
        self.state = state
        self._turn += 1
