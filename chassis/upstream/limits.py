"""Deadlines of outbound requests, and the errors of an exchange that ends early."""

import time
from dataclasses import dataclass
from typing import Self

import httpx2 as httpx

from chassis.request_context import current_request

MARGIN = 0.1  # s; of the current request's time, left for its own response


class DeadlineExceeded(httpx.TimeoutException):
    """The deadline of the exchange, or of the current request, has passed."""


class CircuitOpen(httpx.TransportError):
    """The request was not sent, because the host keeps failing."""


class ResponseRejected(httpx.TransportError):
    """The response is longer than HTTP_MAX_RESPONSE, or compressed."""


@dataclass(frozen=True)
class Deadline:
    """A point in time of time.perf_counter(); `inherited` if it is that of the current request."""

    at: float
    inherited: bool

    @classmethod
    def within(cls, seconds: float) -> Self:
        """In `seconds` from now, but not later than that of the current request."""
        own = time.perf_counter() + seconds
        if (context := current_request.get()) is None:
            return cls(own, inherited=False)
        inherited = context.deadline - MARGIN
        return cls(min(own, inherited), inherited=inherited < own)

    @property
    def remaining(self) -> float:
        return self.at - time.perf_counter()
