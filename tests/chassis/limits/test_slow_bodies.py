"""Bodies that are long in coming take no place from other requests, little memory, and end."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from app.schemas.user import Role
from app.settings import Settings
from chassis.files.settings import FilesSettings
from chassis.limits.load_shedding import AdmissionController
from chassis.limits.settings import RequestSettings
from chassis.resources import Resources, open_resources
from tests.accounts import add_account
from tests.chassis.server.test_http_protocol import serving
from tests.chassis.server.test_unread_bodies import chunk, head
from tests.conftest import client_of
from tests.databases import sqlite_only
from tests.metrics import scrape, total
from tests.process import running
from tests.service import create_app
from tests.shop import Shop

pytestmark = pytest.mark.drill

JSON = "Content-Type: application/json"
FORM = "Content-Type: application/x-www-form-urlencoded"
PDF = "Content-Type: application/pdf"
ADDRESSES = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
EACH = 50  # as many writes as an address may send at once


class SlowClient:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def status(self) -> int:
        """Of the next response."""
        return int((await self.reader.readuntil(b"\r\n")).split()[1])

    async def rest(self) -> bytes:
        return await self.reader.read(-1)

    def close(self) -> None:
        self.writer.close()


async def send(port: int, *parts: bytes, address: str = "127.0.0.1") -> SlowClient:
    streams = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    client = SlowClient(*streams)
    for part in parts:
        client.writer.write(part)
    return client


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


@sqlite_only
async def test_slow_bodies_of_three_addresses_refuse_no_read(
    environment: dict[str, Any], tmp_path: Path
):
    """With all limits as they are by default; each read is one that no cache has answered."""
    del environment["LIMITS_ENABLED"]
    variables = environment | {"WEB_CONCURRENCY": 1}
    content = b'{"refresh_token": "none"}'
    request = head("POST", len(content), JSON, path="/v1/tokens/refresh")
    async with (
        running(tmp_path / "log", **variables) as service,
        service.client() as client,
        asyncio.timeout(60),
    ):
        port = int(service.url.rpartition(":")[2])
        slow = [
            await send(port, request, b"{", address=address)
            for address in ADDRESSES
            for _ in range(EACH)
        ]
        while total(await scrape(client), "http_requests_receiving") < len(slow):
            await asyncio.sleep(0.02)
        reads = [(await client.get(f"/v1/purchases?limit={n}")).status_code for n in range(1, 101)]
        for each in slow[:EACH]:
            each.writer.write(content[1:])
        whole = {await each.status() for each in slow[:EACH]}
        late = {await each.status() for each in slow[EACH:]}
        ends = [await each.rest() for each in slow[EACH:]]
        while total(samples := await scrape(client), "http_requests_receiving"):
            await asyncio.sleep(0.02)
        for each in slow:
            each.close()

    assert reads == 100 * [200]
    assert whole == {401}
    assert late == {408}
    assert all(b"connection: close\r\n" in end for end in ends)
    assert total(samples, "http_requests_shed_total") == 0
    assert [line for line in service.lines if line["level"] == "ERROR"] == []


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    settings.files = FilesSettings(url=f"file://{tmp_path}")
    return settings


@pytest.mark.parametrize(
    ("path", "fields"),
    [("/v1/users", JSON), ("/v1/tokens", FORM), ("/v1/purchases/{id}/receipt", PDF)],
    ids=["json", "form", "stream"],
)
@pytest.mark.parametrize("length", [100, None], ids=["length", "chunked"])
async def test_body_that_does_not_come_is_a_408_and_the_end(
    settings: Settings, path: str, fields: str, length: int | None
):
    """However often a byte of it comes."""
    settings.request = RequestSettings(body_timeout=0.2)
    app = create_app(settings)
    async with open_resources(settings) as resources, client_of(app, resources) as client:
        path, authorization = await receipt_path(client, resources, path)
        async with serving(app, dict(resources)) as port:
            method = "PUT" if "receipt" in path else "POST"
            slow = await send(port, head(method, length, fields, authorization, path=path))
            dripping = asyncio.create_task(drip(slow, b" " if length else chunk(b" ")))
            async with asyncio.timeout(10):
                status, rest = await slow.status(), await slow.rest()
            dripping.cancel()
            slow.close()

    assert status == 408
    assert b"connection: close\r\n" in rest
    assert b"application/problem+json" in rest
    assert b"0.2 s" in rest


async def drip(client: SlowClient, part: bytes) -> None:
    while True:
        client.writer.write(part)
        await asyncio.sleep(0.01)


async def receipt_path(
    client: httpx.AsyncClient, resources: Resources, path: str
) -> tuple[str, str]:
    async with resources["sessions"].write() as session:
        shop = Shop(client, await add_account(session, Role.EDITOR))
    purchase = await shop.add_purchase()
    return path.format(id=purchase["id"]), f"Authorization: Bearer {shop.token}"


async def test_upload_holds_no_place_among_the_working_while_it_waits(
    settings: Settings, tmp_path: Path
):
    settings.request = RequestSettings(max_working=1)
    app = create_app(settings)
    async with open_resources(settings) as resources, client_of(app, resources) as client:
        path, authorization = await receipt_path(client, resources, "/v1/purchases/{id}/receipt")
        content = b"%PDF-1.7 of a receipt"
        async with serving(app, dict(resources)) as port:
            slow = await send(
                port, head("PUT", len(content), PDF, authorization, path=path), content[:9]
            )
            admission: AdmissionController = resources["admission"]
            await until(lambda: admission.bodies.waiting == 1)
            working = admission.working
            reads = [
                (await client.get(f"/v1/purchases?limit={n}")).status_code for n in range(1, 6)
            ]
            slow.writer.write(content[9:])
            status = await slow.status()
            slow.close()

    assert working == 0
    assert reads == 5 * [200]
    assert status == 200
    assert (admission.working, admission.bodies.waiting) == (0, 0)


async def test_bytes_of_bodies_are_bounded_over_all_of_a_worker(settings: Settings):
    settings.request = RequestSettings(max_body=100_000, body_memory=100_000)
    app = create_app(settings)
    async with open_resources(settings) as resources, serving(app, dict(resources)) as port:
        bodies = resources["admission"].bodies
        request = head("POST", 90_000, JSON, path="/v1/users")
        first = await send(port, request, bytes(60_000))
        await until(lambda: bodies.size > 60_000)
        second = await send(port, request, bytes(60_000))
        refused, rest = await second.status(), await second.rest()
        kept = bodies.size
        first.writer.write(bytes(30_000))
        answered = await first.status()
        third = await send(port, request, bytes(90_000))
        after = await third.status()
        for each in (first, second, third):
            each.close()
        samples = resources["metrics"].render().decode()

    assert refused == 503
    assert b"retry-after: 1\r\n" in rest
    assert b"connection: close\r\n" in rest
    assert 60_000 < kept < 70_000
    assert (answered, after) == (422, 422)
    assert bodies.size == 0
    assert 'http_requests_shed_total{reason="bodies"} 1.0' in samples


async def test_as_many_bodies_may_be_on_their_way_as_requests_in_flight(settings: Settings):
    settings.request = RequestSettings(max_in_flight=2)
    app = create_app(settings)
    request = head("POST", 9, JSON, path="/v1/users")
    async with (
        open_resources(settings) as resources,
        client_of(app, resources) as client,
        serving(app, dict(resources)) as port,
    ):
        slow = [await send(port, request) for _ in range(2)]
        await until(lambda: resources["admission"].bodies.waiting == 2)
        refused = await send(port, request)
        status = await refused.status()
        read = await client.get("/v1/purchases")
        for each in (*slow, refused):
            each.close()
        await until(lambda: resources["admission"].bodies.waiting == 0)
        after = await client.post("/v1/users", json={})

    assert status == 503
    assert read.status_code == 200
    assert after.status_code == 422
