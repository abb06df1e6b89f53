"""Policies of rate limits, and what they decide."""

from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Literal

MICRO = 1_000_000

# What each limits is a table in docs/limits.md.
PolicyName = Literal[
    "reads",
    "writes",
    "key_reads",
    "key_writes",
    "login",
    "address",
    "guesses",
    "account_guesses",
    "otp_guesses",
    "stores",
    "mails",
]
# Of requests with an API key.
KEY_POLICIES: dict[PolicyName, PolicyName] = {"reads": "key_reads", "writes": "key_writes"}


@dataclass(frozen=True)
class Policy:
    name: PolicyName
    rate: float  # tokens refilled in a second
    burst: int  # capacity

    @cached_property
    def interval(self) -> int:
        """Time in which one token is refilled, µs."""
        return max(1, round(MICRO / self.rate))

    @cached_property
    def header(self) -> tuple[bytes, bytes]:
        window = ceil(self.burst * self.interval / MICRO)
        return (b"ratelimit-policy", b'"%s";q=%d;w=%d' % (self.name.encode(), self.burst, window))

    def share(self, processes: int) -> "Policy":
        """The part of one process, where each has a bucket of its own."""
        return Policy(self.name, self.rate / processes, max(1, self.burst // processes))


@dataclass(slots=True)
class Decision:
    policy: Policy
    cost: int
    allowed: bool
    full_in: int  # µs

    @property
    def retry_after(self) -> int:
        """Time until the same cost is allowed, whole s."""
        missing = self.full_in - (self.policy.burst - self.cost) * self.policy.interval
        return max(1, ceil(missing / MICRO))

    def headers(self) -> list[tuple[bytes, bytes]]:
        """https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/ (version 10)."""
        policy = self.policy
        remaining = policy.burst - -(-self.full_in // policy.interval)
        left = (policy.name.encode(), max(0, remaining), -(-self.full_in // MICRO))
        return [policy.header, (b"ratelimit", b'"%s";r=%d;t=%d' % left)]
