"""What a worker refuses when too much is asked of it, and what it still answers."""

import asyncio
import gc
import re
import sqlite3
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from fastapi import APIRouter, FastAPI
from sqlalchemy import text

from app.schemas.user import Role
from app.settings import Settings
from chassis.cache.settings import CacheSettings
from chassis.database.settings import DatabaseSettings
from chassis.http.application import include
from chassis.http.routing import Route
from chassis.limits.rate_limit import network_of
from chassis.limits.settings import RequestSettings
from chassis.resources import Resources, open_resources
from tests.accounts import add_account
from tests.conftest import client_of
from tests.databases import sqlite_only
from tests.metrics import scrape, total
from tests.process import running
from tests.service import create_app
from tests.shop import Shop

ACCOUNT = {"email": "mary@example.com", "name": "Mary", "password": "a long enough password"}
SHED = "http_requests_shed_total"


class Gate:
    """A route that works until it is let go."""

    def __init__(self, app: FastAPI) -> None:
        self.open = asyncio.Event()
        router = APIRouter(route_class=Route)

        @router.get("/working")
        async def work() -> None:
            await self.open.wait()

        include(app, router)

    @asynccontextmanager
    async def busy(self, client: httpx.AsyncClient, resources: Resources, count: int):
        """While so many requests work."""
        working = [asyncio.create_task(client.get("/working")) for _ in range(count)]
        while resources["admission"].working < count:
            await asyncio.sleep(0)
        yield
        self.open.set()
        responses = await asyncio.gather(*working)
        assert {response.status_code for response in responses} == {200}


async def test_work_above_the_limit_is_refused_at_once_and_the_cache_still_answers(
    settings: Settings,
):
    settings.request = RequestSettings(max_working=2)
    app = create_app(settings)
    gate = Gate(app)
    async with open_resources(settings) as resources, client_of(app, resources) as client:
        async with resources["sessions"].write() as session:
            shop = Shop(client, await add_account(session, Role.EDITOR))
        purchase = await shop.add_purchase()
        path = f"/v1/purchases/{purchase['id']}"
        await client.get(path)
        async with gate.busy(client, resources, 2):
            refused = await client.get("/v1/purchases")
            write = await shop.change(path, note="Later")
            hit = await client.get(path)
            probes = [await client.get(name) for name in ("/health", "/health/ready", "/metrics")]
            samples = await scrape(client)
        after = await client.get("/v1/purchases")

    assert (refused.status_code, write.status_code) == (503, 503)
    assert refused.headers["Retry-After"] == "1"
    assert refused.json()["detail"] == "The service is overloaded; try again shortly"
    assert (hit.status_code, hit.headers["X-Cache"]) == (200, "HIT")
    assert [probe.status_code for probe in probes] == [200, 200, 200]
    assert total(samples, SHED, reason="working") == 2
    assert after.status_code == 200


async def test_requests_above_the_limit_are_refused_before_anything_is_done_for_them(
    settings: Settings,
):
    settings.request = RequestSettings(max_in_flight=3)
    app = create_app(settings)
    gate = Gate(app)
    async with open_resources(settings) as resources, client_of(app, resources) as client:
        async with gate.busy(client, resources, 3):
            refused = await client.get("/v1/purchases")
            unmatched = await client.get("/nothing")
            probes = [await client.get(name) for name in ("/health", "/health/ready", "/metrics")]
            samples = await scrape(client)
        after = await client.get("/v1/purchases")

    assert (refused.status_code, unmatched.status_code) == (503, 503)
    assert refused.headers["Retry-After"] == "1"
    assert refused.json()["request_id"] == refused.headers["X-Request-ID"]
    assert [probe.status_code for probe in probes] == [200, 200, 200]
    assert total(samples, SHED, reason="in_flight") == 2
    labels = {"route": "refused", "status": "5xx"}
    assert total(samples, "http_request_duration_seconds_count", **labels) == 2
    assert after.status_code == 200


@pytest.fixture
async def narrow(settings: Settings) -> AsyncIterator[Resources]:
    """One connection for reads, and one who may wait for it."""
    settings.database = DatabaseSettings(
        url=settings.database.url, pool_size=2, max_overflow=0, max_waiting=1, pool_timeout=30
    )
    settings.cache = CacheSettings(enabled=False)  # which needs the connection as well
    async with open_resources(settings) as resources:
        yield resources


async def test_queue_for_a_connection_is_short(settings: Settings, narrow: Resources):
    app = create_app(settings)
    async with client_of(app, narrow) as client:
        async with narrow["sessions"].read() as session:
            await session.execute(text("SELECT 1"))
            waiting = asyncio.create_task(client.get("/v1/purchases"))
            while not narrow["sessions"].pools["read"].waiting:
                await asyncio.sleep(0)
            refused = await client.get("/v1/payers")
            samples = await scrape(client)
        response = await waiting

    assert refused.status_code == 503
    assert refused.json()["detail"] == "Too many requests wait for the database right now"
    assert refused.headers["Retry-After"] == "1"
    assert total(samples, SHED, reason="database") == 1
    assert response.status_code == 200


async def test_request_over_its_time_gives_back_what_it_held(settings: Settings):
    settings.request = RequestSettings(timeout=0.1, max_working=1)
    settings.database = DatabaseSettings(url=settings.database.url, pool_size=2, max_overflow=0)
    app = create_app(settings)
    router = APIRouter(route_class=Route)

    @router.get("/holding")
    async def hold() -> None:
        async with resources["sessions"].read() as session:
            await session.execute(text("SELECT 1"))
            await asyncio.sleep(60)

    include(app, router)
    async with open_resources(settings) as resources, client_of(app, resources) as client:
        late = [(await client.get("/holding")).status_code for _ in range(3)]
        in_use = resources["sessions"].pools["read"].checkedout()
        after = await client.get("/v1/purchases")

    assert late == [504, 504, 504]
    assert (in_use, resources["admission"].working) == (0, 0)
    assert after.status_code == 200


@contextmanager
def locked(environment: dict[str, Any]) -> Iterator[None]:
    """While nobody else can write to this SQLite."""
    with closing(sqlite3.connect(environment["DATABASE_URL"].partition("///")[2])) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


async def fill(
    client: httpx.AsyncClient,
) -> tuple["asyncio.Task[httpx.Response]", httpx.Response]:
    """The request that is in flight, the only one that may be; and a refusal."""
    async with asyncio.timeout(10):
        while True:
            waiting = asyncio.create_task(client.post("/v1/users", json=ACCOUNT))
            while not waiting.done():
                refused = await client.get("/v1/purchases")
                if refused.status_code == 503 and not waiting.done():
                    return waiting, refused


@sqlite_only
async def test_real_server_refuses_without_a_task_and_keeps_the_connection(
    environment: dict[str, Any], tmp_path: Path
):
    """One request waits for the database, to write: that is all this worker takes."""
    variables = environment | {"WEB_CONCURRENCY": 1, "REQUEST_MAX_IN_FLIGHT": 1}
    async with (
        running(tmp_path / "log", **variables) as service,
        service.client() as client,
    ):
        with locked(environment):
            waiting, refused = await fill(client)
            named = await client.get("/nothing", headers={"X-Request-ID": "mine"})
            head = await client.head("/v1/purchases")
            body = await client.post("/v1/payers", content=b"x" * 100_000)
            health = await client.get("/health")
            samples = await scrape(client)
        response = await waiting
        after = await client.get("/v1/purchases")
        closed = await client.get("/v1/purchases", headers={"Connection": "close"})

    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.headers["Retry-After"] == "1"
    assert refused.json()["request_id"] == refused.headers["X-Request-ID"]
    assert (named.json()["instance"], named.json()["request_id"]) == ("/nothing", "mine")
    assert (head.status_code, head.content, body.status_code) == (503, b"", 503)
    assert (health.status_code, after.status_code, closed.status_code) == (200, 200, 200)
    assert response.status_code == 201
    assert total(samples, SHED, reason="in_flight") >= 4
    messages = [line["message"] for line in service.lines]
    assert not any(message.endswith(" 503") for message in messages)


@sqlite_only
async def test_requests_sent_ahead_are_all_answered_while_they_are_refused(
    environment: dict[str, Any], tmp_path: Path
):
    variables = environment | {"WEB_CONCURRENCY": 1, "REQUEST_MAX_IN_FLIGHT": 1}
    async with (
        running(tmp_path / "log", **variables) as service,
        service.client() as client,
    ):
        host, port = service.url.removeprefix("http://").split(":")
        with locked(environment):
            waiting, _ = await fill(client)
            reader, writer = await asyncio.open_connection(host, int(port))
            many = 500
            writer.write(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" * (many - 1))
            writer.write(b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            async with asyncio.timeout(20):
                responses = await reader.read(-1)
        await waiting
        writer.close()
        await writer.wait_closed()

    statuses = re.findall(rb"HTTP/1.1 (\d+)", responses)
    assert statuses == many * [b"503"]


@contextmanager
def growing_at_most(limit: int) -> Iterator[None]:
    """`limit`: bytes of Python objects that stay, at least until the next garbage collection."""
    gc.disable()
    tracemalloc.start()
    try:
        yield
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert grown < limit


async def test_what_the_cache_has_answered_takes_little_memory_however_long_it_is(
    resources: Resources,
):
    admission = resources["admission"]
    long = "x" * 7800

    with growing_at_most(4_000_000):
        for n in range(20_000):
            admission.record_hit({"path": f"/{n}{long}", "query_string": f"{n}{long}".encode()})

    admission.working = admission.max_working
    scope = {"path": f"/19999{long}", "query_string": f"19999{long}".encode(), "root_path": ""}
    assert not admission.should_shed(scope, 0)
    assert admission.should_shed(scope | {"query_string": b""}, 0)
    admission.working = 0


def test_what_a_proxy_calls_an_address_takes_little_memory():
    with growing_at_most(6_000_000):
        for n in range(20_000):
            network_of(f"{n}{'x' * 7800}")


async def test_long_paths_take_no_memory(client: httpx.AsyncClient):
    paths = [f"/v1/purchases/{n}{'x' * 7800}" for n in range(300)]
    await client.get(paths[0])

    with growing_at_most(1_000_000):
        for path in paths:
            assert (await client.get(path)).status_code == 422
            await asyncio.sleep(0)  # for the loop, which frees timers of requests that have ended


async def test_limit_never_exceeds_its_setting_however_low_that_is(settings: Settings):
    settings.request = RequestSettings(max_working=2)
    async with open_resources(settings) as resources:
        admission = resources["admission"]
        admission.working = 2
        scope = {"path": "/healthy", "query_string": b"", "root_path": ""}
        assert admission.should_shed(scope, 0)  # which is no health check
        assert not admission.should_shed(scope | {"path": "/health/ready"}, 0)
        admission.working = 0

        admission.adjust(lag=1)

        assert admission.limit == 2
