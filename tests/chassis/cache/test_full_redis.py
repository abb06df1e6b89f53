"""A server that is full and evicts nothing is reported; requests go on."""

from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
from redis import Redis

from app.settings import Settings
from chassis.development.private_servers import Server, embedded_valkey
from chassis.jobs.settings import JobsSettings
from chassis.limits.settings import LimitsSettings
from chassis.redis.settings import RedisSettings
from chassis.server.settings import WebSettings
from tests.databases import sqlite_only
from tests.metrics import scrape, total

# What counts is Redis; one database is enough.

BURST = 4
REFUSED = "redis_refused_writes_total"


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Server]:
    """It has reached the memory that it may have, and answers PING and reads as ever."""
    with embedded_valkey(tmp_path / "full", ["--maxmemory-policy", "noeviction"]) as server:
        give(server, "1")
        yield server


def give(server: Server, memory: str) -> None:
    with Redis.from_url(server.url) as redis:
        redis.config_set("maxmemory", memory)


@pytest.fixture
def settings(settings: Settings, full: Server, request: pytest.FixtureRequest) -> Settings:
    """That server is the one of `full_server`; the other one is well."""
    if request.getfixturevalue("full_server") == "redis":
        settings.redis = RedisSettings(url=full.url, timeout=2)
        return settings
    settings.jobs = JobsSettings(url=full.url)
    settings.limits = LimitsSettings(reads_rate=1 / 3600, reads_burst=BURST)
    settings.web = WebSettings(concurrency=1)
    return settings


async def readiness(client: httpx.AsyncClient) -> dict[str, str]:
    response = await client.get("/health/ready")
    assert response.status_code == 200, response.text
    body: dict[str, str] = response.json()
    return body


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "app.redis"]


@sqlite_only
@pytest.mark.parametrize("full_server", ["queue"])
async def test_full_server_of_limits_is_reported_and_workers_limit(
    client: httpx.AsyncClient, full: Server, full_server: str, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("WARNING", "app.redis")

    responses = [(await client.get("/v1/purchases")).status_code for _ in range(BURST + 2)]
    said, samples = await readiness(client), await scrape(client)
    give(full, "64mb")
    later = await readiness(client)

    assert responses == [200] * BURST + [429] * 2
    assert said == {"status": "ready", "database": "ok", "redis": "ok", "queue": "full"}
    assert warnings(caplog) == ["The queue is full and refuses writes"]
    # One for each request, for what the first one stores, and for the question of readiness.
    assert total(samples, REFUSED, server="queue") == BURST + 2 + 1 + 1
    assert total(samples, REFUSED, server="redis") == 0
    assert later["queue"] == "ok"


@sqlite_only
@pytest.mark.parametrize("full_server", ["redis"])
async def test_full_server_of_the_cache_is_reported_and_nothing_is_stored(
    client: httpx.AsyncClient, full: Server, full_server: str, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("WARNING", "app.redis")

    states = [(await client.get("/v1/purchases")).headers["X-Cache"] for _ in range(3)]
    said, samples = await readiness(client), await scrape(client)
    give(full, "64mb")
    later = await readiness(client)
    states += [(await client.get("/v1/purchases")).headers["X-Cache"] for _ in range(2)]

    assert states == ["MISS"] * 4 + ["HIT"]
    assert said == {"status": "ready", "database": "ok", "redis": "full"}
    assert warnings(caplog) == ["Redis is full and refuses writes"]
    assert total(samples, REFUSED, server="redis") == 3
    assert later["redis"] == "ok"
