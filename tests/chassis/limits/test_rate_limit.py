"""How often a client may ask, counted by a real Valkey, and without it by each worker."""

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from redis.asyncio import Redis

from app.schemas.user import Role
from app.settings import Settings
from benchmarks.client import Tally, request_all
from chassis.limits.policy import Policy
from chassis.limits.rate_limit import RateLimiter, network_of
from chassis.limits.settings import LimitsSettings
from chassis.redis.settings import RedisSettings
from chassis.resources import Resources, open_resources
from chassis.server.settings import WebSettings
from chassis.service_settings import ChassisSettings
from chassis.telemetry.metrics import Metrics
from tests.accounts import add_account
from tests.conftest import client_of
from tests.databases import sqlite_only
from tests.logins import bearing
from tests.metrics import scrape, total
from tests.process import running
from tests.service import create_app
from tests.shop import Shop

# What counts is Redis; one database is enough.

BURST = 5
SLOW = 1 / 3600  # one an hour: nothing comes back while a test runs


@pytest.fixture
def settings(settings: Settings) -> Settings:
    settings.limits = LimitsSettings(
        reads_rate=SLOW, reads_burst=BURST, writes_rate=SLOW, writes_burst=2
    )
    return settings


async def statuses(client: httpx.AsyncClient, count: int, **headers: str) -> list[int]:
    responses = [await client.get("/v1/purchases/1", headers=headers) for _ in range(count)]
    return [response.status_code for response in responses]


@sqlite_only
async def test_burst_passes_and_what_follows_is_refused(client: httpx.AsyncClient):
    responses = [await client.get("/v1/purchases/1") for _ in range(BURST + 1)]

    assert [response.status_code for response in responses] == [404] * BURST + [429]
    assert [response.headers["RateLimit-Policy"] for response in responses] == [
        '"reads";q=5;w=18000'
    ] * 6
    assert [response.headers["RateLimit"] for response in responses] == [
        f'"reads";r={left};t={3600 * (BURST - left)}' for left in (4, 3, 2, 1, 0, 0)
    ]
    refused = responses[-1]
    assert int(refused.headers["Retry-After"]) in (3599, 3600)
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.headers["Cache-Control"] == "no-store"
    assert refused.json()["detail"].startswith("Too many reads")


@sqlite_only
async def test_answer_from_the_cache_counts_as_well(client: httpx.AsyncClient, shop: Shop):
    purchase = await shop.add_purchase()
    responses = [await client.get(f"/v1/purchases/{purchase['id']}") for _ in range(BURST + 1)]

    assert [response.status_code for response in responses] == [200] * BURST + [429]
    assert responses[BURST - 1].headers["X-Cache"] == "HIT"


@sqlite_only
async def test_reads_writes_and_probes_do_not_disturb_each_other(client: httpx.AsyncClient):
    assert (await statuses(client, BURST + 1))[-1] == 429

    writes = [await client.post("/v1/payers", json={"name": "A"}) for _ in range(3)]
    probes = [await client.get(path) for path in ["/health", "/metrics"] * 3]

    assert [response.status_code for response in writes] == [401, 401, 429]
    assert {response.status_code for response in probes} == {200}


@sqlite_only
async def test_account_and_address_have_buckets_of_their_own(client: httpx.AsyncClient, shop: Shop):
    assert (await statuses(client, BURST + 1))[-1] == 429

    assert await statuses(client, BURST + 1, **shop.editor) == [404] * BURST + [429]
    # A token that is none is no account: guessing is no way around the limit.
    assert await statuses(client, 1, Authorization="Bearer guess") == [429]


@sqlite_only
async def test_address_has_a_limit_over_all_its_accounts(settings: Settings, resources: Resources):
    """The same from elsewhere is allowed; an account of its own and no token have other buckets."""
    settings.limits = LimitsSettings(address_rate=SLOW, address_burst=BURST)
    async with resources["sessions"].write() as session:
        roles = [Role.READER, Role.READER]
        tokens = [await add_account(session, role, resources["access_tokens"]) for role in roles]
    app = create_app(settings)
    async with open_resources(settings) as limited, client_of(app, limited) as client:
        several = [await statuses(client, 3, **bearing(token)) for token in tokens]
        refused = await client.get("/v1/users/me", headers=bearing(tokens[0]))
        anonymous = await statuses(client, 1)
        come_from(client, "203.0.113.9")
        elsewhere = await statuses(client, 1, **bearing(tokens[0]))

    assert several == [[404] * 3, [404, 404, 429]]
    assert refused.status_code == 429
    assert refused.headers["RateLimit"].startswith('"address";r=0;')
    assert int(refused.headers["Retry-After"]) > 3000
    assert (anonymous, elsewhere) == ([404], [404])


@sqlite_only
@pytest.mark.parametrize("path", ["/v1/tokens", "/v1/users"])
async def test_login_counts_the_address_whatever_token_comes_with_it(
    settings: Settings, resources: Resources, path: str
):
    settings.limits = LimitsSettings(login_rate=SLOW, login_burst=BURST)
    async with resources["sessions"].write() as session:
        tokens = [
            await add_account(session, Role.READER, resources["access_tokens"])
            for _ in range(BURST)
        ]
    app = create_app(settings)
    async with open_resources(settings) as limited, client_of(app, limited) as client:
        responses = [
            (await client.post(path, headers=headers)).status_code
            for headers in [*map(bearing, tokens), bearing(tokens[0]), bearing("guess"), {}]
        ]
        come_from(client, "203.0.113.9")
        elsewhere = await client.post(path, headers=bearing(tokens[0]))

    assert responses == [422] * BURST + [429] * 3
    assert elsewhere.status_code == 422


def come_from(client: httpx.AsyncClient, address: str) -> None:
    client._transport.client = (address, 1)  # type: ignore[attr-defined]


@sqlite_only
async def test_an_aggregate_costs_as_much_as_five_reads(client: httpx.AsyncClient):
    totals = await client.get("/v1/purchases/totals")

    assert totals.headers["RateLimit"].startswith('"reads";r=0;')
    assert await statuses(client, 1) == [429]


@sqlite_only
async def test_decisions_are_counted(client: httpx.AsyncClient):
    await statuses(client, BURST + 2)

    samples = await scrape(client)
    decisions = "rate_limit_decisions_total"
    assert total(samples, decisions, policy="reads", decision="allowed", by="redis") == BURST
    assert total(samples, decisions, policy="reads", decision="refused", by="redis") == 2


@sqlite_only
async def test_without_redis_each_worker_gives_its_share_and_says_so(settings: Settings):
    settings = settings.model_copy(
        update={
            "redis": RedisSettings(url="unix:///nowhere.sock"),
            "web": WebSettings(concurrency=2),
            "limits": LimitsSettings(reads_rate=SLOW, reads_burst=4),
        }
    )
    app = create_app(settings)
    async with open_resources(settings) as resources, client_of(app, resources) as client:
        responses = await statuses(client, 3)
        samples = await scrape(client)

    assert responses == [404, 404, 429]
    decisions = "rate_limit_decisions_total"
    assert total(samples, decisions, decision="allowed", by="worker") == 2
    assert total(samples, decisions, decision="refused", by="worker") == 1


@sqlite_only
async def test_limits_go_on_after_the_scripts_of_redis_are_lost(
    client: httpx.AsyncClient, resources: Resources
):
    await statuses(client, 2)
    await resources["redis"].script_flush()

    assert await statuses(client, BURST - 1) == [404] * (BURST - 2) + [429]


@sqlite_only
async def test_cost_takes_several_tokens_and_never_more_than_there_can_be(
    settings: Settings, resources: Resources
):
    limiter: RateLimiter = resources["limiter"]

    async def take(cost: int, caller: str) -> bool:
        return (await limiter.decide(limiter.start_consume("reads", caller, cost))).allowed

    assert [await take(2, "two") for _ in range(3)] == [True, True, False]
    assert [await take(100, "hundred") for _ in range(2)] == [True, False]


@pytest.mark.parametrize("redis", ["there", "away"])
@sqlite_only
async def test_tokens_come_back_at_the_rate(settings: Settings, redis: str, resources: Resources):
    """As many as time has passed by the clock that counts, though nobody says how much."""
    settings.limits = LimitsSettings(reads_rate=50, reads_burst=1)
    settings.web = WebSettings(concurrency=1)
    shared = resources["cache"].store.shared
    async with open_resources(
        settings.model_copy(update={"redis": RedisSettings(url="unix:///nowhere.sock")})
    ) as away:
        shared = shared if redis == "there" else away["cache"].store.shared
        limiter = RateLimiter(
            shared,
            settings.cache.namespace,
            settings.limits,
            settings.web.concurrency * settings.web.replicas,
            Metrics(),
        )
        loop = asyncio.get_running_loop()
        start, passed = loop.time(), 0
        while passed < 20:
            passed += (await limiter.decide(limiter.start_consume("reads", "one", 1))).allowed
            await asyncio.sleep(0)

    assert loop.time() - start >= 19 / 50


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("unix", "unix"),
    ],
)
def test_client_is_an_ipv4_address_or_a_network_of_ipv6(address: str, network: str):
    assert network_of(address) == network


def test_retry_after_is_when_the_cost_can_be_paid():
    policy = Policy("reads", rate=2, burst=10)

    assert policy.interval == 500_000
    assert policy.header == (b"ratelimit-policy", b'"reads";q=10;w=5')


async def forwarded(url: str, addresses: list[str]) -> list[int]:
    async with httpx.AsyncClient(base_url=url) as client:
        responses = [
            await client.get("/v1/purchases/1", headers={"X-Forwarded-For": address})
            for address in addresses
        ]
    return [response.status_code for response in responses]


@sqlite_only
async def test_only_a_trusted_proxy_is_believed_who_the_client_is(
    environment: dict[str, Any], tmp_path: Path
):
    variables = environment | {
        "WEB_CONCURRENCY": 1,
        "LIMITS_ENABLED": True,
        "LIMITS_READS_RATE": SLOW,
        "LIMITS_READS_BURST": 1,
    }
    others = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "192.0.2.1"]

    async with running(tmp_path / "trusted", **variables) as service:
        believed = await forwarded(service.url, others)
    variables |= {"FORWARDED_ALLOW_IPS": "192.0.2.9", "CACHE_NAMESPACE": "test-forged"}
    async with running(tmp_path / "untrusted", **variables) as service:
        forged = await forwarded(service.url, others)

    assert believed == [404, 404, 404, 429, 429]
    assert forged == [404, 429, 429, 429, 429]


LOCAL = ChassisSettings.model_fields["forwarded_allow_ips"].default


@sqlite_only
async def test_addresses_are_the_same_in_every_form(environment: dict[str, Any], tmp_path: Path):
    """A socket for both versions of IP shows a proxy's address as IPv6 maps it."""
    variables = environment | {
        "BIND": "::",
        "WEB_CONCURRENCY": 1,
        "FORWARDED_ALLOW_IPS": f"{LOCAL},10.0.0.0/8",
        "LIMITS_ENABLED": True,
        "LIMITS_READS_RATE": SLOW,
        "LIMITS_READS_BURST": 1,
    }
    forms = ["192.0.2.1", "192.0.2.1:5678", "::ffff:192.0.2.1", "192.0.2.1, ::ffff:10.0.0.2"]
    forms += ["[::ffff:192.0.2.1]:80", "[2001:db8::1]:443", "2001:db8::2", "192.0.2.2"]

    async with running(tmp_path / "log", **variables) as service:
        statuses = await forwarded(service.url, forms)
        async with service.client() as client:
            lines = [("X-Forwarded-For", "192.0.2.3"), ("X-Forwarded-For", "10.0.0.3")]
            await client.get("/v1/purchases/1", headers=lines)
            await client.get("/v1/purchases/1")
            url = service.url.replace("127.0.0.1", "[::1]")
            await client.get(f"{url}/v1/purchases/1", headers={"X-Forwarded-For": "192.0.2.4"})

    assert statuses == [404, 429, 429, 429, 429, 404, 429, 404]
    clients = [line["client"] for line in service.lines if "client" in line]
    addresses = [*5 * ["192.0.2.1"], "2001:db8::1", "2001:db8::2", "192.0.2.2", "192.0.2.3"]
    assert clients == [*addresses, "127.0.0.1", "192.0.2.4"]


@pytest.mark.drill
@sqlite_only
async def test_eight_processes_together_pass_rate_times_time_and_the_burst(
    environment: dict[str, Any], tmp_path: Path
):
    rate, burst, seconds = 20, 10, 10
    variables = environment | {
        "WEB_CONCURRENCY": 8,
        "REDIS_TIMEOUT": 2,  # nobody shall decide without it
        "LOG_ACCESS_SAMPLE": 0,
        "LIMITS_ENABLED": True,
        "LIMITS_READS_RATE": rate,
        "LIMITS_READS_BURST": burst,
    }
    tally = Tally()
    async with (
        Redis.from_url(environment["REDIS_URL"]) as redis,
        running(tmp_path / "log", **variables) as service,
    ):
        await request_all(service.url, ["/health"], 100)
        times = [await redis_time(redis)]
        while times[-1] < times[0] + seconds:
            await request_all(service.url, ["/v1/purchases/1"], 64, clients=32, tally=tally)
            times.append(await redis_time(redis))

    # From the first round to the last, all that came back was taken; in a round that took long, as
    # the machine had no time, no more than a bucket holds.
    assert tally.responses.keys() == {404, 429}
    least = burst + sum(min(rate * (end - start), burst) for start, end in pairwise(times[1:-1]))
    most = burst + rate * (times[-1] - times[0])
    assert least - 1 <= tally.responses[404] <= most + 1
    assert tally.responses[429] > most


async def redis_time(redis: Redis) -> float:
    seconds, micro = await redis.time()
    return float(seconds) + float(micro) / 1_000_000
