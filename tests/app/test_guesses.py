"""Wrong passwords: how many there may be, and that they lock nobody out where he logs in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select, update

from app.logins.networks import KNOWN_FOR, MAX_NETWORKS
from app.main import create_app
from app.models import LoginNetwork
from app.settings import Settings
from chassis.limits.rate_limit import RateLimiter
from chassis.limits.settings import LimitsSettings
from chassis.redis.settings import RedisSettings
from chassis.resources import Resources, open_resources
from chassis.telemetry.metrics import Metrics
from tests.conftest import client_of
from tests.databases import sqlite_only
from tests.logins import EMAIL, PASSWORD, REGISTER, bearing, log_in, tokens_of
from tests.process import running

BURST = 5  # wrong passwords from one network
OVER_ALL = 8  # those from all that have not logged in
SLOW = 1 / 3600  # one an hour: nothing comes back while a test runs


@pytest.fixture
def settings(settings: Settings) -> Settings:
    settings.limits = LimitsSettings(
        login_rate=SLOW, login_burst=BURST, account_rate=SLOW, account_burst=OVER_ALL
    )
    return settings


class Networks:
    """Clients of one service, each in a network of its own."""

    def __init__(self, app: FastAPI, resources: Resources, stack: AsyncExitStack) -> None:
        self.app = app
        self.resources = resources
        self.stack = stack

    async def client(self, network: int) -> httpx.AsyncClient:
        address = f"198.51.100.{network}"
        return await self.stack.enter_async_context(client_of(self.app, self.resources, address))

    async def log_in(self, network: int, password: str = PASSWORD, email: str = EMAIL) -> int:
        return (await log_in(await self.client(network), password, email)).status_code

    async def guess(self, networks: range, email: str = EMAIL) -> list[int]:
        return [await self.log_in(network, "a guess", email) for network in networks]


@asynccontextmanager
async def networks_of(settings: Settings) -> AsyncIterator[Networks]:
    async with AsyncExitStack() as stack:
        resources = await stack.enter_async_context(open_resources(settings))
        yield Networks(create_app(settings), resources, stack)


@pytest.fixture
async def networks(settings: Settings, resources: Resources) -> AsyncIterator[Networks]:
    """There is an account; who registered it has not logged in."""
    async with networks_of(settings) as networks:
        made = await (await networks.client(0)).post("/v1/users", json=REGISTER)
        assert made.status_code == 201, made.text
        yield networks


async def test_owner_logs_in_from_where_he_did_before_whatever_others_guess(networks: Networks):
    before = await networks.log_in(1)
    guesses = await networks.guess(range(10, 10 + OVER_ALL + 2))
    owner = await networks.log_in(1)
    elsewhere = await networks.log_in(50)
    mistyped = await networks.log_in(1, "a slip")

    assert (before, owner, mistyped) == (200, 200, 401)
    assert guesses == [401] * OVER_ALL + [429] * 2
    assert elsewhere == 429


async def test_what_is_refused_says_when_to_try_again_and_why(networks: Networks):
    await networks.guess(range(10, 10 + OVER_ALL))
    refused = await log_in(await networks.client(30))

    assert refused.status_code == 429
    assert 3500 < int(refused.headers["Retry-After"]) <= 3600
    assert refused.json()["detail"].startswith("Too many account guesses")


async def test_logins_that_succeed_never_count(networks: Networks):
    """From ever new networks, where the bound over all holds; and there is room for all guesses."""
    logins = [await networks.log_in(10 + number) for number in range(OVER_ALL + 2)]
    guesses = await networks.guess(range(50, 50 + OVER_ALL + 1))

    assert logins == [200] * (OVER_ALL + 2)
    assert guesses == [401] * OVER_ALL + [429]


@pytest.mark.parametrize(("network", "left"), [(1, OVER_ALL), (2, OVER_ALL - BURST)])
async def test_network_has_its_own_bound_which_the_present_password_shares(
    networks: Networks, network: int, left: int
):
    """What one has tried in vain takes nothing from others, nor does what a known one has tried."""
    headers = bearing((await tokens_of(await networks.client(1)))["access_token"])
    client = await networks.client(network)

    async def change(current: str, **more: str) -> int:
        body = {"current_password": current, "password": "prometheus unbound", **more}
        return (await client.patch("/v1/users/me", json=body, headers=headers)).status_code

    slip = await networks.log_in(network, "a slip")
    guesses = [await change("a guess") for _ in range(BURST + 3)]
    rename = await client.patch("/v1/users/me", json={"name": "Mary Shelley"}, headers=headers)

    assert slip == 401
    assert guesses == [422] * (BURST - 1) + [429] * 4
    assert await change(PASSWORD) == 429
    assert rename.status_code == 200
    assert await networks.guess(range(50, 50 + left + 1)) == [401] * left + [429]


async def test_guesses_at_the_same_time_are_no_more(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
):
    """Fifty from as many networks; and fifty of the present password. So many hashes they cost."""
    hashed = 0
    verify = networks.resources["passwords"]._hash.verify

    def counting(password: str, hash: str) -> bool:
        nonlocal hashed
        hashed += 1
        return verify(password, hash)

    owner = await networks.client(1)
    headers = bearing((await tokens_of(owner))["access_token"])
    body = {"current_password": "a guess", "password": "prometheus unbound"}
    clients = [await networks.client(number) for number in range(100, 150)]
    monkeypatch.setattr(networks.resources["passwords"]._hash, "verify", counting)

    logins = await asyncio.gather(*(log_in(client, "a guess") for client in clients))
    hashed_by_logins = hashed
    changes = await asyncio.gather(
        *(owner.patch("/v1/users/me", json=body, headers=headers) for _ in range(50))
    )

    assert sorted(response.status_code for response in logins) == [401] * OVER_ALL + [429] * 42
    assert sorted(response.status_code for response in changes) == [422] * BURST + [429] * 45
    assert (hashed_by_logins, hashed) == (OVER_ALL, OVER_ALL + BURST)


async def test_password_that_nobody_had_time_to_look_at_does_not_count(networks: Networks):
    networks.resources["passwords"].max_waiting = 0
    busy = await networks.guess(range(10, 10 + 2 * OVER_ALL))
    networks.resources["passwords"].max_waiting = 100

    assert busy == [503] * (2 * OVER_ALL)
    assert await networks.guess(range(50, 50 + OVER_ALL)) == [401] * OVER_ALL


async def test_unknown_account_is_limited_as_others_are(networks: Networks):
    for email in (EMAIL, "nobody@example.com"):
        statuses = await networks.guess(range(10, 10 + OVER_ALL + 1), email)
        assert statuses == [401] * OVER_ALL + [429], email


@pytest.mark.parametrize("end", ["logout", "password"])
async def test_network_is_known_beyond_the_session(networks: Networks, end: str):
    client = await networks.client(1)
    headers = bearing((await tokens_of(client))["access_token"])
    body = {"current_password": PASSWORD, "password": "prometheus unbound"}
    if end == "logout":
        ended = await client.delete("/v1/tokens", headers=headers)
    else:
        ended = await client.patch("/v1/users/me", json=body, headers=headers)
    await networks.guess(range(10, 10 + OVER_ALL))

    assert ended.is_success
    assert await networks.log_in(1, PASSWORD if end == "logout" else body["password"]) == 200
    assert await networks.log_in(50) == 429


async def test_network_is_forgotten_after_a_while_unless_there_is_a_login(networks: Networks):
    async def pass_by(time: timedelta) -> None:
        async with networks.resources["sessions"].write.begin() as session:
            seen_at = LoginNetwork.seen_at
            rows = {
                row.network: row.seen_at
                for row in await session.execute(select(LoginNetwork.network, seen_at))
            }
            for network, seen in rows.items():
                this = LoginNetwork.network == network
                await session.execute(update(LoginNetwork).where(this).values(seen_at=seen - time))

    for network in (1, 2):
        await networks.log_in(network)
    await pass_by(KNOWN_FOR - timedelta(days=1))
    await networks.log_in(1)
    await pass_by(timedelta(days=2))
    await networks.guess(range(10, 10 + OVER_ALL))

    assert [await networks.log_in(network) for network in (1, 2)] == [200, 429]


async def test_number_of_networks_of_an_account_is_bounded(networks: Networks):
    """The latest stay."""
    logins = [await networks.log_in(10 + number) for number in range(MAX_NETWORKS + 3)]
    async with networks.resources["sessions"].current() as session:
        count = await session.scalar(select(func.count()).select_from(LoginNetwork))
    await networks.guess(range(100, 100 + OVER_ALL))

    assert logins == [200] * (MAX_NETWORKS + 3)
    assert count == MAX_NETWORKS
    assert [await networks.log_in(10 + number) for number in (2, 3)] == [429, 200]


@sqlite_only
async def test_guesses_are_limited_without_redis_too(settings: Settings, resources: Resources):
    settings.redis = RedisSettings(url="unix:///nowhere.sock")
    settings.web.concurrency = 1
    async with networks_of(settings) as networks:
        await (await networks.client(0)).post("/v1/users", json=REGISTER)
        logins = [await networks.log_in(number) for number in range(10, 10 + OVER_ALL + 1)]
        guesses = await networks.guess(range(50, 50 + OVER_ALL + 1))
        again = await networks.log_in(10)

    assert logins == [200] * (OVER_ALL + 1)
    assert guesses == [401] * OVER_ALL + [429]
    assert again == 200


@sqlite_only
async def test_guesses_at_the_same_time_are_no_more_over_all_workers(
    environment: dict[str, Any], resources: Resources, tmp_path: Path
):
    """Two workers of a real Gunicorn, fifty networks; the owner logs in meanwhile."""
    variables = environment | {
        "WEB_CONCURRENCY": 2,
        "REDIS_TIMEOUT": 2,  # nobody shall decide without it
        "PASSWORDS_TIME_COST": 1,
        "PASSWORDS_MEMORY_COST": 8,
        "LIMITS_ENABLED": True,
        "LIMITS_ACCOUNT_RATE": SLOW,
        "LIMITS_ACCOUNT_BURST": OVER_ALL,
    }
    async with (
        running(tmp_path / "log", **variables) as service,
        service.client() as client,
    ):

        async def log_in_from(address: str, password: str = PASSWORD) -> int:
            form = {"grant_type": "password", "username": EMAIL, "password": password}
            headers = {"X-Forwarded-For": address}
            return (await client.post("/v1/tokens", data=form, headers=headers)).status_code

        await client.post("/v1/users", json=REGISTER)
        first = await log_in_from("192.0.2.1")
        guesses = [log_in_from(f"198.51.100.{number}", "a guess") for number in range(50)]
        owner, *guessed = await asyncio.gather(log_in_from("192.0.2.1"), *guesses)
        after = [await log_in_from(address) for address in ("192.0.2.1", "192.0.2.2")]

    assert sorted(guessed) == [401] * OVER_ALL + [429] * (50 - OVER_ALL)
    assert (first, owner, after) == (200, 200, [200, 429])


@pytest.mark.parametrize("redis", ["there", "away"])
@sqlite_only
async def test_what_is_given_back_can_be_taken_and_no_more(
    settings: Settings, resources: Resources, redis: str
):
    shared = resources["cache"].store.shared
    url = settings.redis.url if redis == "there" else "unix:///nowhere.sock"
    settings.web.concurrency = 1
    changed = settings.model_copy(update={"redis": RedisSettings(url=url, timeout=2)})
    async with open_resources(changed) as opened:
        shared = opened["cache"].store.shared
        limiter = RateLimiter(
            shared,
            settings.cache.namespace,
            settings.limits,
            settings.web.concurrency * settings.web.replicas,
            Metrics(),
        )

        async def taken(count: int) -> int:
            asked = [limiter.start_consume("guesses", "one", 1) for _ in range(count)]
            return sum([(await limiter.decide(each)).allowed for each in asked])

        first = await taken(BURST + 1)
        for _ in range(2):
            await limiter.refund("guesses", "one")
        second = await taken(3)
        for _ in range(3 * BURST):
            await limiter.refund("guesses", "one")
        third = await taken(2 * BURST)

    assert (first, second, third) == (BURST, 2, BURST)
