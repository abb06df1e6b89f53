"""Retries of outbound requests: which, when, and how many."""

import asyncio
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from itertools import count

import httpx2 as httpx
from prometheus_client import Counter

from chassis.clock import now
from chassis.request_context import IDEMPOTENT_METHODS
from chassis.tasks.backoff import backoff
from chassis.upstream.circuit_breaker import CircuitBreaker
from chassis.upstream.limits import CircuitOpen, Deadline, DeadlineExceeded, ResponseRejected
from chassis.upstream.settings import HttpSettings

RETRIED = {429, 502, 503, 504}  # statuses
CAPACITY = 10  # retries
REFILL = 0.1  # retries for each request: a failing service gets at most a tenth more load


class RetryBudget:
    """Bounds the retries of one host: each request deposits a part of a retry.

    So a service that fails gets a little more load from retries, not a multiple.
    https://sre.google/sre-book/handling-overload/
    """

    def __init__(self) -> None:
        self._balance = float(CAPACITY)

    def deposit(self) -> None:
        self._balance = min(CAPACITY, self._balance + REFILL)

    def withdraw(self) -> bool:
        if self._balance < 1:
            return False
        self._balance -= 1
        return True


class Retries:
    """The retries of one host: `run` repeats an attempt that failed.

    It does so if the request may be sent again, HTTP_RETRIES, the deadline and the retry budget
    leave room, and the circuit is closed. See docs/upstream.md.
    """

    def __init__(self, settings: HttpSettings, breaker: CircuitBreaker, counter: Counter) -> None:
        """`counter` counts the retries."""
        self.settings = settings
        self.breaker = breaker
        self.counter = counter
        self.budget = RetryBudget()

    async def run(
        self,
        attempt: Callable[[], Awaitable[httpx.Response]],
        request: httpx.Request,
        deadline: Deadline,
    ) -> httpx.Response:
        """The response of the last attempt, or its error."""
        self.budget.deposit()
        for number in count(1):
            try:
                response = await attempt()
            except (CircuitOpen, DeadlineExceeded, ResponseRejected, httpx.PoolTimeout):
                raise
            except httpx.TransportError:
                if not await self._wait(request, number, deadline):
                    raise
            else:
                if response.status_code not in RETRIED:
                    return response
                if not await self._wait(request, number, deadline, retry_after(response)):
                    return response
        raise AssertionError  # count() is infinite

    async def _wait(
        self, request: httpx.Request, attempt: int, deadline: Deadline, wait: float | None = None
    ) -> bool:
        """Whether to make another attempt; if so, pay for it and wait, by default the backoff."""
        if wait is None:
            wait = backoff(self.settings.backoff, attempt)
        if (
            not may_be_repeated(request)
            or attempt > self.settings.retries
            or deadline.remaining <= wait
            or self.breaker.state != "closed"
            or not self.budget.withdraw()
        ):
            return False
        self.counter.inc()
        await asyncio.sleep(wait)
        return True


def may_be_repeated(request: httpx.Request) -> bool:
    """Whether it is idempotent (RFC 9110, 9.2.2) and its body can be sent again."""
    is_idempotent = request.method in IDEMPOTENT_METHODS or "Idempotency-Key" in request.headers
    return is_idempotent and isinstance(request.stream, httpx.ByteStream)


def retry_after(response: httpx.Response) -> float | None:
    """The Retry-After header, a number or a date (RFC 9110, 10.2.3), in s."""
    value = response.headers.get("Retry-After", "")
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - now()).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None
