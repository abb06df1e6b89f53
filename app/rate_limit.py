"""How often a client may ask: a token bucket for each policy and client, kept by Redis.

It is the generic cell rate algorithm (GCRA), which needs one number: the theoretical arrival time
(TAT), when the bucket will be full again. https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm
"""

import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha1
from ipaddress import IPv4Address, IPv6Network, ip_address
from math import ceil
from typing import Any, Literal, NamedTuple

from redis.exceptions import NoScriptError, RedisError
from starlette.types import Scope

from app.access_tokens import claims_of
from app.addresses import MAX_ADDRESS
from app.errors import TooManyRequests, Unauthorized
from app.metrics import Metrics
from app.settings import Settings
from app.shared_connection import Answer, SharedConnection

MAX_LOCAL = 10_000  # clients that a worker keeps in mind while Redis is away
MICRO = 1_000_000

PolicyName = Literal["reads", "writes", "login", "address"]

# KEYS: the bucket; ARGV: time per token in µs, size of the bucket, tokens wanted.
# Gives whether they were had, and the time in µs until it is full again; without waiting for
# anybody's clock but the server's own. Redis prints large numbers with an exponent: not this one.
TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local full_at = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
local wanted = full_at + ARGV[1] * ARGV[3]
if wanted - now > ARGV[1] * ARGV[2] then
    return {0, full_at - now}
end
local lasts = math.ceil((wanted - now) / 1000) + 1
redis.call('SET', KEYS[1], string.format('%.0f', wanted), 'PX', lasts)
return {1, wanted - now}
"""
SHA = sha1(TAKE.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Policy:
    name: PolicyName
    rate: float  # tokens that come back in a second
    burst: int  # tokens in a full bucket

    @cached_property
    def interval(self) -> int:
        """Time in which a token comes back, µs."""
        return max(1, round(MICRO / self.rate))

    @cached_property
    def header(self) -> tuple[bytes, bytes]:
        window = ceil(self.burst * self.interval / MICRO)
        return (b"ratelimit-policy", b'"%s";q=%d;w=%d' % (self.name.encode(), self.burst, window))

    def share(self, processes: int) -> "Policy":
        return Policy(self.name, self.rate / processes, max(1, self.burst // processes))


@dataclass(slots=True)
class Decision:
    policy: Policy
    cost: int
    allowed: bool
    full_in: int  # µs

    @property
    def retry_after(self) -> int:
        """When the same is possible, in whole s."""
        missing = self.full_in - (self.policy.burst - self.cost) * self.policy.interval
        return max(1, ceil(missing / MICRO))

    def headers(self) -> list[tuple[bytes, bytes]]:
        """https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/ (version 10)."""
        policy = self.policy
        remaining = policy.burst - -(-self.full_in // policy.interval)
        left = (policy.name.encode(), max(0, remaining), -(-self.full_in // MICRO))
        return [policy.header, (b"ratelimit", b'"%s";r=%d;t=%d' % left)]


class Asked(NamedTuple):
    policy: Policy
    caller: str
    cost: int
    arguments: tuple[Any, ...]
    answer: Answer


class RateLimiter:
    def __init__(self, shared: SharedConnection, settings: Settings, metrics: Metrics) -> None:
        self.shared = shared
        self.namespace = settings.cache.namespace
        self.metrics = metrics
        limits = settings.limits
        self.enabled = limits.enabled
        self.policies: dict[PolicyName, Policy] = {
            "reads": Policy("reads", limits.reads_rate, limits.reads_burst),
            "writes": Policy("writes", limits.writes_rate, limits.writes_burst),
            "login": Policy("login", limits.login_rate, limits.login_burst),
            "address": Policy("address", limits.address_rate, limits.address_burst),
        }
        # While Redis is away, each process has its part of every bucket.
        processes = settings.web.concurrency * settings.web.replicas
        self._shares = {name: policy.share(processes) for name, policy in self.policies.items()}
        self._buckets = LocalBuckets()

    async def take(self, name: PolicyName, caller: str) -> None:
        """Raises TooManyRequests: of what is limited besides the request itself."""
        if self.enabled:
            decision = await self.decide(self.ask(name, caller, 1))
            if not decision.allowed:
                raise TooManyRequests(name, decision.retry_after)

    def ask(self, name: PolicyName, caller: str, cost: int) -> Asked:
        """Take tokens; `decide` says whether they were there, and meanwhile more may be asked."""
        policy = self.policies[name]
        cost = min(cost, policy.burst)
        bucket = f"{self.namespace}:limit:{name}:{caller}"
        arguments = (1, bucket, policy.interval, policy.burst, cost)
        return Asked(policy, caller, cost, arguments, self.shared.send("EVALSHA", SHA, *arguments))

    async def decide(self, asked: Asked) -> Decision:
        policy, caller, cost, arguments, answer = asked
        by = "redis"
        try:
            try:
                allowed, full_in = await self.shared.receive(answer)
            except NoScriptError:  # the server has started anew since
                allowed, full_in = await self.shared.call("EVAL", TAKE, *arguments)
        except RedisError:
            by, policy = "worker", self._shares[policy.name]
            cost = min(cost, policy.burst)
            allowed, full_in = self._buckets.take(policy, caller, cost)
        self.metrics.count_decision(policy.name, "allowed" if allowed else "refused", by)
        return Decision(policy, cost, bool(allowed), full_in)


class LocalBuckets:
    """The same without Redis, in the memory of one process."""

    def __init__(self) -> None:
        self._full_at: OrderedDict[tuple[str, str], int] = OrderedDict()

    def take(self, policy: Policy, client: str, cost: int) -> tuple[bool, int]:
        now = time.monotonic_ns() // 1000
        key = (policy.name, client)
        full_at = max(self._full_at.get(key, 0), now)
        wanted = full_at + policy.interval * cost
        if wanted - now > policy.interval * policy.burst:
            return False, full_at - now
        self._full_at[key] = wanted
        self._full_at.move_to_end(key)
        if len(self._full_at) > MAX_LOCAL:
            self._full_at.popitem(last=False)
        return True, wanted - now


def buckets_of(scope: Scope, policy: PolicyName) -> list[tuple[PolicyName, str]]:
    """What a request takes tokens from. Logins count by address whatever token comes with them,
    as one address may have many accounts; for the same reason all that accounts do from one
    address has a limit, too.
    """
    address = _address_of(scope)
    account = None if policy == "login" else _account_of(scope)
    if account is None:
        return [(policy, address)]
    return [(policy, account), ("address", address)]


def caller_of(scope: Scope) -> str:
    """The account where there is a valid token, else the address."""
    return _account_of(scope) or _address_of(scope)


def _account_of(scope: Scope) -> str | None:
    try:
        claims = claims_of(scope)
    except Unauthorized:
        return None
    return claims and f"user:{claims.user_id}"


def _address_of(scope: Scope) -> str:
    """A proxy's word for it counts only where uvicorn was told to trust that proxy."""
    client = scope["client"]
    return network_of(client[0]) if client else "local"


def network_of(address: str) -> str:
    """Who counts as one client: an IPv4 address, or the /64 that one has of IPv6."""
    return _network_of(address[:MAX_ADDRESS])  # as a server or a proxy may say anything


@lru_cache(maxsize=10_000)
def _network_of(address: str) -> str:
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, IPv4Address):
        return str(ip)
    return str(ip.ipv4_mapped or IPv6Network((int(ip), 64), strict=False))
