import time
from collections.abc import Callable
from typing import Literal

State = Literal["closed", "open", "half-open"]


class CircuitBreaker:
    """Stops requests to a host that keeps failing, then tries one.

    Closed: all pass; `failures` in a row open it. Open: none pass for `open_for` s. Half-open: one
    attempt passes, and its result closes or opens it. Call `enter` before each attempt, then one of
    `succeeded`, `failed` and `abandoned` with the *generation* that it returned: results of
    attempts from before the last change of state are ignored.
    https://martinfowler.com/bliki/CircuitBreaker.html
    """

    def __init__(
        self, failures: int, open_for: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.failures = failures
        self.open_for = open_for
        self.state: State = "closed"
        self._clock = clock
        self._generation = 0
        self._failed = 0
        self._opened_at = 0.0

    def enter(self) -> int | None:
        """The generation of an attempt that may be made, else None."""
        if self.state == "closed":
            return self._generation
        if self.state == "half-open" or self._clock() < self._opened_at + self.open_for:
            return None
        self._become("half-open")
        return self._generation

    def succeeded(self, generation: int) -> None:
        if generation == self._generation:
            self._failed = 0
            if self.state != "closed":
                self._become("closed")

    def failed(self, generation: int) -> None:
        if generation == self._generation:
            self._failed += 1
            if self.state != "closed" or self._failed >= self.failures:
                self._opened_at = self._clock()
                self._become("open")

    def abandoned(self, generation: int) -> None:
        """The attempt ended without a result, by a cancellation or our own limits."""
        if generation == self._generation and self.state == "half-open":
            self._become("open")  # since `open_for` has passed, the next attempt may be made

    def _become(self, state: State) -> None:
        self.state = state
        self._generation += 1
