"""The rate limit of a route, and its check for a request."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypedDict, TypeVar

from starlette.types import Scope
from typing_extensions import ReadOnly

from chassis.errors import TooManyRequests
from chassis.limits.policy import PolicyName
from chassis.limits.rate_limit import RateLimiter, buckets_of
from chassis.request_context import current_request

Check = Callable[[], Awaitable[None]]
Cost = int | Callable[[Any], int]  # of the service's settings
F = TypeVar("F", bound=Callable[..., Any])


class LimitsState(TypedDict):
    """See chassis/http/request_state.py."""

    limiter: RateLimiter
    settings: ReadOnly[Any]


class RateLimitRule(NamedTuple):
    policy: PolicyName
    cost: Cost = 1

    def tokens(self, settings: object) -> int:
        return self.cost if isinstance(self.cost, int) else max(1, self.cost(settings))


def limited(policy: PolicyName, cost: Cost = 1) -> Callable[[F], F]:
    """Limit this handler by another policy, or at another cost, than reads and writes have."""

    def mark(handler: F) -> F:
        handler.rate_limit_rule = RateLimitRule(policy, cost)  # type: ignore[attr-defined]
        return handler

    return mark


async def _no_check() -> None:
    pass


def start_check(scope: Scope, rule: RateLimitRule, times: int = 1) -> Check:
    """Send the check to Redis; the result awaits the decision, and raises TooManyRequests.

    Commands that are sent between the two share its round trip.
    """
    state: LimitsState = scope["state"]
    limiter = state["limiter"]
    if not limiter.enabled:
        return _no_check
    cost = rule.tokens(state["settings"]) * times
    first, *others = [
        limiter.start_consume(policy, caller, cost)
        for policy, caller in buckets_of(scope, rule.policy)
    ]

    async def enforce_limit() -> None:
        decision = await limiter.decide(first)
        for each in others:
            other = await limiter.decide(each)
            if decision.allowed and not other.allowed:
                decision = other
        if (context := current_request.get()) is not None:
            context.response_headers += decision.headers()
        if not decision.allowed:
            raise TooManyRequests(decision.policy.name.replace("_", " "), decision.retry_after)

    return enforce_limit
