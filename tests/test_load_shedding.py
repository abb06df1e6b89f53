"""What a worker refuses when too much is asked of it, and what it still answers."""

import asyncio
import re
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, FastAPI
from sqlalchemy import text

from app.main import create_app
from app.rate_limit import network_of
from app.resources import Resources, open_resources
from app.routing import Route, include
from app.schemas.user import Role
from app.settings import CacheSettings, DatabaseSettings, RequestSettings, Settings
from tests.accounts import add_account
from tests.catalogue import Catalogue
from tests.conftest import client_of
from tests.databases import sqlite_only
from tests.metrics import scrape, total
from tests.process import running

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
    async def busy(self, client: httpx2.AsyncClient, resources: Resources, count: int):
        """While so many requests work."""
        working = [asyncio.create_task(client.get("/working")) for _ in range(count)]
        while resources["workload"].working < count:
            await asyncio.sleep(0)
        yield
        self.open.set()
        answers = await asyncio.gather(*working)
        assert {answer.status_code for answer in answers} == {200}


async def test_work_above_the_limit_is_refused_at_once_and_the_cache_still_answers(
    settings: Settings,
):
    settings.request = RequestSettings(max_working=2)
    app = create_app(settings)
    gate = Gate(app)
    async with open_resources(settings) as resources, client_of(app, resources) as client:
        async with resources["sessions"].write() as session:
            catalogue = Catalogue(client, await add_account(session, Role.EDITOR))
        book = await catalogue.add_book()
        path = f"/v1/books/{book['id']}"
        await client.get(path)
        async with gate.busy(client, resources, 2):
            refused = await client.get("/v1/books")
            write = await catalogue.change(path, title="Later")
            hit = await client.get(path)
            probes = [await client.get(name) for name in ("/health", "/health/ready", "/metrics")]
            samples = await scrape(client)
        after = await client.get("/v1/books")

    assert (refused.status_code, write.status_code) == (503, 503)
    assert refused.headers["Retry-After"] == "1"
    assert refused.json()["detail"] == "Too much is asked of this service right now"
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
            refused = await client.get("/v1/books")
            unmatched = await client.get("/nothing")
            probes = [await client.get(name) for name in ("/health", "/health/ready", "/metrics")]
            samples = await scrape(client)
        after = await client.get("/v1/books")

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
            waiting = asyncio.create_task(client.get("/v1/books"))
            while not narrow["sessions"].pools["read"].waiting:
                await asyncio.sleep(0)
            refused = await client.get("/v1/authors")
            samples = await scrape(client)
        answer = await waiting

    assert refused.status_code == 503
    assert refused.json()["detail"] == "Too many requests wait for the database right now"
    assert refused.headers["Retry-After"] == "1"
    assert total(samples, SHED, reason="database") == 1
    assert answer.status_code == 200


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
        after = await client.get("/v1/books")

    assert late == [504, 504, 504]
    assert (in_use, resources["workload"].working) == (0, 0)
    assert after.status_code == 200


@sqlite_only
async def test_real_server_refuses_without_a_task_and_keeps_the_connection(
    environment: dict[str, Any], tmp_path: Path
):
    """One request is on its way, whose body does not come: that is all this worker takes."""
    variables = environment | {"WEB_CONCURRENCY": 1, "REQUEST_MAX_IN_FLIGHT": 1}
    async with (
        running(tmp_path / "log", **variables) as service,
        httpx2.AsyncClient(base_url=service.url) as client,
    ):
        host, port = service.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"POST /v1/users HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
            b"Content-Type: application/json\r\n\r\n"
        )
        async with asyncio.timeout(10):
            while (refused := await client.get("/v1/books")).status_code != 503:
                await asyncio.sleep(0.01)
        named = await client.get("/nothing", headers={"X-Request-ID": "mine"})
        head = await client.head("/v1/books")
        body = await client.post("/v1/authors", content=b"x" * 100_000)
        health = await client.get("/health")
        samples = await scrape(client)
        writer.write(b"not json!")
        answer = await reader.readuntil(b"\r\n")
        after = await client.get("/v1/books")
        closed = await client.get("/v1/books", headers={"Connection": "close"})
        writer.close()

    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.headers["Retry-After"] == "1"
    assert refused.json()["request_id"] == refused.headers["X-Request-ID"]
    assert (named.json()["instance"], named.json()["request_id"]) == ("/nothing", "mine")
    assert (head.status_code, head.content, body.status_code) == (503, b"", 503)
    assert (health.status_code, after.status_code, closed.status_code) == (200, 200, 200)
    assert answer.split()[1] == b"422"
    assert total(samples, SHED, reason="in_flight") >= 4
    messages = [line["message"] for line in service.lines]
    assert not any(message.endswith(" 503") for message in messages)


@sqlite_only
async def test_requests_sent_ahead_are_all_answered_while_they_are_refused(
    environment: dict[str, Any], tmp_path: Path
):
    variables = environment | {"WEB_CONCURRENCY": 1, "REQUEST_MAX_IN_FLIGHT": 1}
    async with running(tmp_path / "log", **variables) as service:
        host, port = service.url.removeprefix("http://").split(":")
        _, holding = await asyncio.open_connection(host, int(port))
        holding.write(b"POST /v1/users HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        reader, writer = await asyncio.open_connection(host, int(port))
        many = 500
        writer.write(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" * (many - 1))
        writer.write(b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(20):
            answers = await reader.read(-1)
        for each in (holding, writer):
            each.close()
            await each.wait_closed()  # else the service would wait for what is on its way

    statuses = re.findall(rb"HTTP/1.1 (\d+)", answers)
    assert len(statuses) == many
    assert set(statuses) <= {b"404", b"503"}


@contextmanager
def growing_at_most(limit: int) -> Iterator[None]:
    """`limit`: bytes of Python objects that stay."""
    tracemalloc.start()
    try:
        yield
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < limit


async def test_what_the_cache_has_answered_takes_little_memory_however_long_it_is(
    resources: Resources,
):
    workload = resources["workload"]
    long = "x" * 7800

    with growing_at_most(4_000_000):
        for n in range(20_000):
            workload.remember({"path": f"/{n}{long}", "query_string": f"{n}{long}".encode()})

    workload.working = workload.max_working
    scope = {"path": f"/19999{long}", "query_string": f"19999{long}".encode(), "root_path": ""}
    assert not workload.refuses(scope, 0)
    assert workload.refuses(scope | {"query_string": b""}, 0)
    workload.working = 0


def test_what_a_proxy_calls_an_address_takes_little_memory():
    with growing_at_most(6_000_000):
        for n in range(20_000):
            network_of(f"{n}{'x' * 7800}")


async def test_long_paths_take_no_memory(client: httpx2.AsyncClient):
    paths = [f"/v1/books/{n}{'x' * 7800}" for n in range(300)]
    await client.get(paths[0])

    with growing_at_most(1_000_000):
        for path in paths:
            assert (await client.get(path)).status_code == 422
