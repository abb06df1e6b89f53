"""The service under load while its Valkey server is replaced: by Sentinels, and in a cluster."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from chassis.cache.settings import CacheSettings
from chassis.jobs.job import Job
from chassis.redis import server as server_module
from chassis.redis.settings import RedisSettings
from chassis.resources import Resources, open_resources
from chassis.tasks.background import background
from tests.accounts import editors_token
from tests.chassis.redis.nodes import (
    NAMESPACE,
    PASSWORD,
    PRIMARY,
    SLOT,
    Nodes,
    cluster,
    watched_servers,
)
from tests.databases import mariadb_only, sqlite_only
from tests.jobs import listeners_of
from tests.load import load
from tests.metrics import scrape, total
from tests.process import TIMEOUT, Service, freeze, running, wait_until
from tests.shop import Shop

pytestmark = pytest.mark.drill

NUMBERS = count()


async def lookups(service: Service, result: str) -> float:
    async with service.client() as client:
        return total(await scrape(client), "cache_lookups_total", result=result)


async def until_reconnected(service: Service, path: str) -> None:
    """Both workers. One that has no request asks its server for nothing, so it learns nothing."""
    async with asyncio.timeout(TIMEOUT):
        while len(service.messages("Redis is reachable again")) < 2:
            async with service.client() as another:
                await another.get(path)


def end(nodes: Nodes, outage: str) -> None:
    assert nodes.primary.server.process is not None
    if outage == "killed":
        nodes.primary.server.process.kill()
        nodes.primary.server.process.wait()
    elif outage == "silent":
        freeze(nodes.primary.server.process)
        for sentinel in nodes.sentinels[:1]:  # as where they share a machine
            assert sentinel.server.process is not None
            freeze(sentinel.server.process)
    else:
        nodes.promote()


def bring_back(nodes: Nodes, outage: str) -> None:
    if outage == "killed":
        nodes.primary.server.start()
    elif outage == "silent":
        assert nodes.primary.server.process is not None
        nodes.primary.server.process.send_signal(signal.SIGCONT)
        for sentinel in nodes.sentinels[:1]:
            assert sentinel.server.process is not None
            sentinel.server.process.send_signal(signal.SIGCONT)


@mariadb_only
@pytest.mark.parametrize("outage", ["killed", "silent", "planned"])
@pytest.mark.parametrize("start", [watched_servers, cluster])
async def test_failover_under_load_fails_no_request_and_serves_nothing_old(
    environment: dict[str, Any],
    tmp_path: Path,
    start: Callable[[Path], AbstractContextManager[Nodes]],
    outage: str,
):
    """The server before comes back, and knows nothing of the writes since."""
    with start(tmp_path / "nodes") as nodes:
        variables = environment | {"REDIS_URL": nodes.url, "CACHE_NAMESPACE": NAMESPACE}
        variables |= {"LIMITS_ENABLED": True}
        variables |= {"LIMITS_READS_RATE": 100_000, "LIMITS_READS_BURST": 100_000}
        async with (
            running(tmp_path / "log", **variables) as service,
            service.client() as client,
        ):
            shop = Shop(client, await editors_token(environment["DATABASE_URL"]))
            path = f"/v1/purchases/{(await shop.add_purchase('Before'))['id']}"

            async def notes(times: int = 30) -> set[str]:
                return {(await client.get(path)).json()["note"] for _ in range(times)}

            async with load(service.url, path) as under_load:
                await under_load.until(200)
                before = await lookups(service, "hit")
                end(nodes, outage)
                changed = [await shop.change(path, note="During")]
                during = await notes()
                await wait_until(lambda: nodes.is_replaced, "the replica to take over")
                await until_reconnected(service, path)
                changed += [await shop.change(path, note="Replaced")]
                replaced = await notes()
                hits = await lookups(service, "hit")
                bring_back(nodes, outage)
                while await lookups(service, "hit") < hits + 100:
                    await under_load.until(50)
                changed += [await shop.change(path, note="After")]
                after = await notes(100)

    assert under_load.failures == []
    assert under_load.responses.keys() == {200}
    assert before > 0
    assert [each.status_code for each in changed] == [200, 200, 200]
    assert (during, replaced, after) == ({"During"}, {"Replaced"}, {"After"})


class Greeting(Job):
    name = "greeting"


class Worker:
    """Caches numbers, another one at each load."""

    def __init__(self, resources: Resources) -> None:
        self.cache = resources["cache"]
        self.server = self.cache.store.shared.server

    async def value(self) -> int:
        return await self.cache.get_or_load("a", int, self._load, ttl=3600, tags=["one", "two"])

    async def _load(self) -> int:
        return next(NUMBERS)

    async def cached(self) -> int:
        """Wait until the value is."""
        async with asyncio.timeout(TIMEOUT):
            while (found := await self.value()) != await self.value():
                await asyncio.sleep(0.01)
        return found


@sqlite_only
async def test_slot_that_moves_to_another_node_is_misses_and_loses_no_invalidation(
    settings: Settings, tmp_path: Path
):
    with cluster(tmp_path) as nodes:
        nodes.keep_primary()
        source, target = nodes.primary, nodes.another
        settings.redis = RedisSettings(url=nodes.url)
        settings.cache = CacheSettings(namespace=f"{{{NAMESPACE}}}")
        async with open_resources(settings) as resources:
            worker = Worker(resources)
            values = [await worker.cached()]
            run_id = worker.server.run_id
            source_id, target_id = [each.call("CLUSTER", "MYID") for each in (source, target)]
            target.call("CLUSTER", "SETSLOT", SLOT, "IMPORTING", source_id)
            source.call("CLUSTER", "SETSLOT", SLOT, "MIGRATING", target_id)
            values.append(await worker.value())
            await worker.cache.invalidate("two")  # its token has not moved yet
            values.append(await worker.value())
            keys = source.call("CLUSTER", "GETKEYSINSLOT", SLOT, 100)
            place = ("127.0.0.1", target.port, "", 0, 5000)
            source.call("MIGRATE", *place, "AUTH", PASSWORD, "KEYS", *keys)
            await worker.cache.invalidate("one")
            values.append(await worker.value())
            for node in (target, source):
                node.call("CLUSTER", "SETSLOT", SLOT, "NODE", target_id)
            values.append(await worker.cached())
            await worker.cache.invalidate("two")
            values.append(await worker.cached())

    assert values[0] == values[1]
    assert values[1:] == sorted({*values[1:]})
    assert worker.server.run_id != run_id


@sqlite_only
@pytest.mark.parametrize("start", [watched_servers, cluster])
async def test_commit_of_a_job_wakes_the_workers_after_a_failover(
    settings: Settings, tmp_path: Path, start: Callable[[Path], AbstractContextManager[Nodes]]
):
    with start(tmp_path) as nodes:
        settings.redis = RedisSettings(url=nodes.url)
        settings.cache = CacheSettings(namespace=f"{{{NAMESPACE}}}")
        async with open_resources(settings) as resources:
            outbox, woken = resources["outbox"], asyncio.Event()
            async with (
                background(outbox.listen(woken.set), "listen"),
                asyncio.timeout(TIMEOUT),
            ):
                await wait_until(lambda: outbox.shared.connection is not None, "a connection")
                while not await listeners_of(resources):
                    await asyncio.sleep(0.01)
                run_id = outbox.shared.server.run_id
                end(nodes, "killed")
                await wait_until(lambda: outbox.shared.server.run_id != run_id, "the replica")
                while not await listeners_of(resources):
                    await asyncio.sleep(0.01)
                async with resources["sessions"].write.begin() as session:
                    await outbox.write(session, Greeting(), "greeting")
                await woken.wait()


@sqlite_only
async def test_invalidation_on_a_primary_that_was_replaced_is_not_lost(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A worker that has not heard of it yet invalidates where the others no longer read."""
    monkeypatch.setattr(server_module, "WATCH_INTERVAL", 3)
    with watched_servers(tmp_path) as nodes:
        nodes.keep_primary()
        settings.redis = RedisSettings(url=nodes.url)
        async with open_resources(settings) as resources:
            worker = Worker(resources)
            await worker.cached()
            await worker.cache.invalidate("one")  # leaves a connection in the pool
            nodes.promote()
            primary = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", PRIMARY)
            nodes.sentinels[0].wait_for(*primary, text=str(nodes.replica.port))
            async with open_resources(settings) as resources, asyncio.timeout(TIMEOUT):
                other = Worker(resources)
                before = await other.cached()
                run_ids = [worker.server.run_id, other.server.run_id]
                await worker.cache.invalidate("one")
                while await other.value() == before:
                    await asyncio.sleep(0.01)

    assert run_ids[0] != run_ids[1]
