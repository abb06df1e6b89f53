from functools import lru_cache
from hashlib import sha1
from ipaddress import IPv4Address, IPv6Network, ip_address
from typing import Any, NamedTuple

from redis.exceptions import NoScriptError, RedisError
from starlette.types import Scope

from chassis.addresses import MAX_ADDRESS
from chassis.auth.api_keys import KeyClaims
from chassis.auth.credentials import valid_claims
from chassis.errors import TooManyRequests
from chassis.limits.fallback_buckets import FallbackBuckets
from chassis.limits.metrics import LimitMetrics
from chassis.limits.policy import KEY_POLICIES, Decision, Policy, PolicyName
from chassis.limits.settings import LimitsSettings
from chassis.redis.shared_connection import Reply, SharedConnection
from chassis.telemetry.metrics import Metrics

KIBIBYTE = 1024

# KEYS: the bucket; ARGV: time per token in µs, capacity, tokens to consume (negative: to return).
# Returns whether the bucket had them, and the time in µs until it is full again. `%.0f`, as Lua
# would print so large a number with an exponent.
CONSUME = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local full_at = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
local next_full_at = math.max(full_at + ARGV[1] * ARGV[3], now)
if next_full_at - now > ARGV[1] * ARGV[2] then
    return {0, full_at - now}
end
local ttl = math.ceil((next_full_at - now) / 1000) + 1
redis.call('SET', KEYS[1], string.format('%.0f', next_full_at), 'PX', ttl)
return {1, next_full_at - now}
"""
SHA = sha1(CONSUME.encode(), usedforsecurity=False).hexdigest()


class PendingCheck(NamedTuple):
    policy: Policy
    caller: str
    cost: int
    arguments: tuple[Any, ...]
    reply: Reply


class RateLimiter:
    """Decides by token bucket whether a client may do something at a cost of tokens.

    A *policy* names a rate and a burst; each policy has a bucket for each *caller*: an account,
    a network or both. The buckets are in Redis, so that all workers share them, on the server that
    evicts nothing: otherwise a client could fill the cache to evict the buckets that protect
    passwords. While that server is unreachable or full each process decides alone, with its share.
    The algorithm is GCRA, which stores one number for a bucket: the time when it is full again.
    https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm, docs/limits.md
    """

    def __init__(
        self,
        shared: SharedConnection,
        namespace: str,
        limits: LimitsSettings,
        processes: int,
        metrics: Metrics,
    ) -> None:
        """`processes`: how many share rate and burst while the server is unreachable."""
        self.shared = shared
        self.namespace = namespace
        self.metrics = metrics.of(LimitMetrics)
        self.enabled = limits.enabled
        self.policies: dict[PolicyName, Policy] = {
            "reads": Policy("reads", limits.reads_rate, limits.reads_burst),
            "writes": Policy("writes", limits.writes_rate, limits.writes_burst),
            "key_reads": Policy("key_reads", limits.key_reads_rate, limits.key_reads_burst),
            "key_writes": Policy("key_writes", limits.key_writes_rate, limits.key_writes_burst),
            "login": Policy("login", limits.login_rate, limits.login_burst),
            "address": Policy("address", limits.address_rate, limits.address_burst),
            "guesses": Policy("guesses", limits.login_rate, limits.login_burst),
            "account_guesses": Policy("account_guesses", limits.account_rate, limits.account_burst),
            "otp_guesses": Policy("otp_guesses", limits.otp_rate, limits.otp_burst),
            "stores": Policy("stores", limits.stores_rate, limits.stores_burst),
            "mails": Policy("mails", limits.mails_rate, limits.mails_burst),
        }
        self._shares = {name: policy.share(processes) for name, policy in self.policies.items()}
        self._buckets = FallbackBuckets()

    async def consume(self, name: PolicyName, caller: str) -> None:
        """Consume one token; raises TooManyRequests."""
        if self.enabled:
            decision = await self.decide(self.start_consume(name, caller, 1))
            if not decision.allowed:
                raise TooManyRequests(name.replace("_", " "), decision.retry_after)

    async def refund(self, name: PolicyName, caller: str) -> None:
        if self.enabled:
            await self.decide(self.start_consume(name, caller, -1))

    async def may_store(self, caller: str, size: int) -> bool:
        """Pay for a cache entry of `size` bytes; False: the caller has stored too much."""
        if not self.enabled:
            return True
        pending = self.start_consume("stores", caller, 1 + size // KIBIBYTE)
        return (await self.decide(pending)).allowed

    def start_consume(self, name: PolicyName, caller: str, cost: int) -> PendingCheck:
        """Consume tokens without waiting, if `enabled`; then `decide`. Above the burst: all."""
        policy = self.policies[name]
        cost = min(cost, policy.burst)
        bucket = f"{self.namespace}:limit:{name}:{caller}"
        arguments = (1, bucket, policy.interval, policy.burst, cost)
        return PendingCheck(
            policy, caller, cost, arguments, self.shared.send("EVALSHA", SHA, *arguments)
        )

    async def decide(self, pending: PendingCheck) -> Decision:
        policy, caller, cost, arguments, reply = pending
        by = "redis"
        try:
            try:
                allowed, full_in = await self.shared.receive(reply)
            except NoScriptError:  # its first use, or the server was restarted
                allowed, full_in = await self.shared.call("EVAL", CONSUME, *arguments)
        except RedisError:
            by, policy = "worker", self._shares[policy.name]
            cost = min(cost, policy.burst)
            name = f"{policy.name}:{caller}"
            allowed, full_in = self._buckets.consume(name, policy.interval, policy.burst, cost)
        if cost > 0:
            self.metrics.decisions(policy.name, "allowed" if allowed else "refused", by).inc()
        return Decision(policy, cost, bool(allowed), full_in)


def buckets_of(scope: Scope, policy: PolicyName) -> list[tuple[PolicyName, str]]:
    """The policies and callers that a request is checked against.

    One address may have many accounts. So logins count for the address even with a token, and
    requests of accounts count for the address as well. Each API key has buckets of its own.
    """
    address = client_network(scope)
    claims = None if policy == "login" else valid_claims(scope)
    if claims is None:
        return [(policy, address)]
    if isinstance(claims, KeyClaims):
        return [(KEY_POLICIES.get(policy, policy), f"key:{claims.key_id}"), ("address", address)]
    return [(policy, f"user:{claims.user_id}"), ("address", address)]


def caller_of(scope: Scope) -> str:
    """The account, whether it uses a token or a key; else the network."""
    claims = valid_claims(scope)
    return client_network(scope) if claims is None else f"user:{claims.user_id}"


def client_network(scope: Scope) -> str:
    """By the address that uvicorn determined: `X-Forwarded-For` only counts of trusted proxies."""
    client = scope["client"]
    return network_of(client[0]) if client else "local"


def network_of(address: str) -> str:
    """What counts as one client: an IPv4 address, or the /64 network of an IPv6 address."""
    return _network_of(address[:MAX_ADDRESS])  # limits what the cache below holds


@lru_cache(maxsize=10_000)
def _network_of(address: str) -> str:
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, IPv4Address):
        return str(ip)
    return str(ip.ipv4_mapped or IPv6Network((int(ip), 64), strict=False))
