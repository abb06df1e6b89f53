"""What clients can do to the memory of the cache and of limits: drills with counts and bytes."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2 as httpx
import pytest

from app.settings import Settings
from chassis.auth.settings import PasswordSettings
from chassis.clock import now
from chassis.development.private_servers import Server, embedded_valkey
from chassis.jobs.settings import JobsSettings
from chassis.limits.settings import LimitsSettings
from chassis.redis.settings import RedisSettings
from chassis.resources import Resources, open_resources
from tests.conftest import client_of
from tests.databases import sqlite_only
from tests.logins import log_in
from tests.purchases.model import Purchase
from tests.service import create_app

# What counts is Redis; one database is enough.

SLOW = 1 / 3600  # a token an hour: nothing comes back while a test runs
MANY = 1_000_000
KIBIBYTE = 1024
SMALL = ["--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru"]
PAGES = 150  # of 20 kB: more than the small cache holds


@pytest.fixture
def small_cache(tmp_path: Path) -> Iterator[Server]:
    """That evicts whatever it likes, as Compose's does."""
    with embedded_valkey(tmp_path / "cache", SMALL) as server:
        yield server


@pytest.fixture
async def long_notes(resources: Resources) -> None:
    async with resources["sessions"].write.begin() as session:
        session.add_all(row(note="x" * 490 + str(n)) for n in range(25))


def row(**values: Any) -> Purchase:
    usual = {"number": uuid4(), "status": "open", "total": 1_000_000, "weight": 0, "gift": False}
    return Purchase(**usual | {"placed_at": now()} | values)


@asynccontextmanager
async def client_with(
    settings: Settings, limits: LimitsSettings, cache: Server | None = None
) -> AsyncIterator[tuple[httpx.AsyncClient, Resources]]:
    update: dict[str, object] = {
        "limits": limits,
        "passwords": PasswordSettings(time_cost=1, memory_cost=8),
    }
    if cache is not None:  # and what must not be evicted in the other server
        update["redis"] = RedisSettings(url=cache.url, timeout=2)
        update["jobs"] = JobsSettings(url=settings.redis.url)
    settings = settings.model_copy(update=update)
    async with (
        open_resources(settings) as resources,
        client_of(create_app(settings), resources) as client,
    ):
        yield client, resources


async def flood(client: httpx.AsyncClient, pages: int, turn: int = 0) -> None:
    """Distinct pages of 20 kB, all of one client."""
    for total in range(turn * pages, (turn + 1) * pages):
        response = await client.get(f"/v1/purchases?limit=25&total_from={total}")
        assert (response.status_code, response.headers["X-Cache"]) == (200, "MISS"), response.text


async def evicted(resources: Resources) -> int:
    return int((await resources["redis"].info("stats"))["evicted_keys"])


async def keys(resources: Resources, kind: str) -> list[bytes]:
    namespace = resources["settings"].cache.namespace
    return [key async for key in resources["redis"].scan_iter(f"{namespace}:{kind}:*", 1000)]


async def memory(resources: Resources, kind: str) -> int:
    """Bytes that the server spends on the keys of a kind, their values included."""
    redis = resources["redis"]
    return sum([await redis.memory_usage(key) or 0 for key in await keys(resources, kind)])


@pytest.mark.drill
@sqlite_only
@pytest.mark.usefixtures("long_notes")
async def test_guesses_are_limited_however_full_the_cache_is(
    settings: Settings, small_cache: Server
):
    """One client who may store as much as it likes, and empties the cache between its guesses."""
    limits = LimitsSettings(
        login_rate=SLOW, login_burst=5, reads_burst=MANY, stores_burst=MANY, stores_rate=MANY
    )
    guesses = []
    async with client_with(settings, limits, small_cache) as (client, resources):
        for turn in range(3):
            before = await evicted(resources)
            guesses += [(await log_in(client, f"guess {n}")).status_code for n in range(4)]
            await flood(client, PAGES, turn)
            assert await evicted(resources) > before

    assert guesses == [401] * 5 + [429] * 7


@sqlite_only
@pytest.mark.usefixtures("long_notes")
async def test_what_one_client_may_store_is_bounded(
    settings: Settings, resources: Resources, small_cache: Server
):
    """Above it, it is answered all the same; what others have stored stays."""
    limits = LimitsSettings(reads_burst=MANY, stores_rate=SLOW, stores_burst=256)
    async with client_with(settings, limits, small_cache) as (client, own):
        await flood(client, 100)
        stored, used = await keys(own, "entry"), await memory(own, "entry")
        client._transport.client = ("203.0.113.9", 1)  # type: ignore[attr-defined]
        others = [(await client.get("/v1/purchases")).headers["X-Cache"] for _ in range(2)]
        client._transport.client = ("127.0.0.1", 1)  # type: ignore[attr-defined]
        await flood(client, 100, turn=1)
        others.append((await client.get("/v1/purchases")).headers["X-Cache"])
        added = await keys(own, "entry")

        assert await evicted(own) == 0
    assert others == ["MISS", "HIT", "HIT"]
    assert 10 <= len(stored) <= 256 * KIBIBYTE // 18_000
    assert used <= 2 * 256 * KIBIBYTE
    assert len(added) == len(stored) + 1


@sqlite_only
async def test_small_entries_are_bounded_in_number(settings: Settings, resources: Resources):
    """A key costs a KiB at least, which is more than the server spends on it and its tags."""
    limits = LimitsSettings(reads_burst=MANY, stores_rate=SLOW, stores_burst=50)
    async with client_with(settings, limits) as (client, own):
        for purchase_id in range(1, 201):
            assert (await client.get(f"/v1/purchases/{purchase_id}")).status_code == 404
        stored = await keys(own, "entry")
        used = await memory(own, "entry") + await memory(own, "tag")

    assert len(stored) == 50
    assert used <= 200 * KIBIBYTE


@sqlite_only
async def test_ids_that_do_not_exist_cost_little_and_end_soon(
    client: httpx.AsyncClient, resources: Resources
):
    redis, count = resources["redis"], 200
    for purchase_id in range(1, count + 1):
        assert (await client.get(f"/v1/purchases/{purchase_id}")).status_code == 404
    entries, tags = await keys(resources, "entry"), await keys(resources, "tag")

    assert len(entries) == count
    assert len(tags) == count
    assert max([await redis.ttl(key) for key in entries]) <= 10
    assert max([await redis.ttl(key) for key in tags]) <= 20
    assert await memory(resources, "entry") + await memory(resources, "tag") <= 600 * count


@sqlite_only
async def test_tags_of_what_is_stored_stay(client: httpx.AsyncClient, resources: Resources):
    async with resources["sessions"].write.begin() as session:
        session.add(added := row())
    responses = [await client.get(f"/v1/purchases/{added.id}") for _ in range(2)]

    ttls = [await resources["redis"].ttl(key) for key in await keys(resources, "tag")]
    assert [response.headers["X-Cache"] for response in responses] == ["MISS", "HIT"]
    assert min(ttls) > 3500
