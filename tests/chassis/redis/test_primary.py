"""Cache, limits and wake-ups with several Valkey servers: of Sentinels, and of a cluster."""

import asyncio
from collections.abc import Iterator
from itertools import count

import httpx2 as httpx
import pytest

from app.settings import Settings
from chassis.cache.cache import Cache
from chassis.cache.settings import CacheSettings
from chassis.errors import TooManyRequests
from chassis.jobs.job import Job
from chassis.limits.settings import LimitsSettings
from chassis.preflight import run_checks
from chassis.redis.settings import RedisSettings
from chassis.resources import Resources
from chassis.tasks.background import background
from tests.chassis.redis.nodes import NAMESPACE, PRIMARY, Nodes, cluster, watched_servers
from tests.databases import sqlite_only
from tests.jobs import listeners_of
from tests.metrics import scrape, total
from tests.process import TIMEOUT, wait_until

pytestmark = sqlite_only

numbers = count()


class Greeting(Job):
    name = "greeting"


@pytest.fixture(scope="module", params=[watched_servers, cluster])
def nodes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Nodes]:
    with request.param(tmp_path_factory.mktemp("nodes")) as nodes:
        nodes.keep_primary()
        yield nodes


@pytest.fixture
def settings(settings: Settings, nodes: Nodes) -> Settings:
    update = {
        "redis": RedisSettings(url=nodes.url),
        "cache": CacheSettings(namespace=f"{{{NAMESPACE}}}"),
        "limits": LimitsSettings(writes_rate=0.001, writes_burst=3),
    }
    return settings.model_copy(update=update)


async def load() -> int:
    """Another value each time."""
    return next(numbers)


async def value(resources: Resources) -> int:
    cache: Cache = resources["cache"]
    return await cache.get_or_load("a", int, load, ttl=60, tags=["one", "two", "three"])


async def connected(resources: Resources) -> None:
    await wait_until(lambda: resources["limiter"].shared.connection is not None, "a connection")


async def failed_invalidations(client: httpx.AsyncClient) -> float:
    return total(await scrape(client), "cache_invalidations_total", result="failed")


async def test_value_of_several_tags_is_served_until_one_is_invalidated(
    resources: Resources, client: httpx.AsyncClient
):
    await connected(resources)

    first, again = [await value(resources) for _ in range(2)]
    await resources["cache"].invalidate("two")
    after, last = [await value(resources) for _ in range(2)]

    assert first == again != after == last
    assert await failed_invalidations(client) == 0


async def test_limits_are_counted_by_the_server(resources: Resources, client: httpx.AsyncClient):
    await connected(resources)

    for _ in range(3):
        await resources["limiter"].consume("writes", "a caller")
    with pytest.raises(TooManyRequests):
        await resources["limiter"].consume("writes", "a caller")

    assert total(await scrape(client), "rate_limit_decisions_total", by="worker") == 0


async def test_commit_of_a_job_wakes_the_workers(resources: Resources):
    await connected(resources)
    outbox, woken = resources["outbox"], asyncio.Event()

    async with background(outbox.listen(woken.set), "listen"), asyncio.timeout(TIMEOUT):
        while not await listeners_of(resources):
            await asyncio.sleep(0.01)
        async with resources["sessions"].write.begin() as session:
            await outbox.write(session, Greeting(), "greeting")
        await woken.wait()


async def test_readiness_and_check_know_the_primary(
    resources: Resources, client: httpx.AsyncClient, nodes: Nodes
):
    await connected(resources)

    ready = await client.get("/health/ready")
    findings = {finding.name: finding for finding in await run_checks(resources["settings"])}

    assert ready.json()["redis"] == "ok"
    assert findings["redis"].detail.endswith(f", the primary is {nodes.primary.host}")


async def test_check_says_why_there_is_no_primary(settings: Settings, nodes: Nodes):
    url = nodes.url.replace(f"/{PRIMARY}/", "/another/").replace("://:", "://:wrong")
    settings.redis = RedisSettings(url=url)

    findings = {finding.name: finding for finding in await run_checks(settings)}

    reason = "No such master" if nodes.sentinels else "invalid username-password pair"
    assert not findings["redis"].ok
    assert f"no primary was found: {reason}" in findings["redis"].detail


@pytest.mark.drill
async def test_planned_failover_loses_no_invalidation(
    resources: Resources, client: httpx.AsyncClient, nodes: Nodes
):
    """The server before lives on. One that Sentinels have replaced is told so ten seconds later."""
    await connected(resources)
    await resources["cache"].invalidate("one")  # leaves an idle connection in the pool
    before = await value(resources)

    nodes.promote()
    async with asyncio.timeout(TIMEOUT):
        while await value(resources) == before:
            await asyncio.sleep(0.01)
        while await value(resources) != await value(resources):
            await asyncio.sleep(0.01)
    is_told = nodes.primary.says("INFO", text="role:slave")
    cached, failed = await value(resources), await failed_invalidations(client)
    await resources["cache"].invalidate("three")

    assert await value(resources) > cached
    assert await failed_invalidations(client) == failed
    assert is_told != bool(nodes.sentinels)
