"""What requests and connections leave for the garbage collector, which counts no bytes."""

import asyncio
import gc
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2 as httpx
import pytest

from app.settings import Settings
from chassis.resources import Resources
from tests.chassis.server.test_http_protocol import serving
from tests.databases import sqlite_only
from tests.metrics import scrape, total
from tests.service import create_app
from tests.shop import Shop

pytestmark = pytest.mark.drill

TIMES = 5
JSON = "Content-Type: application/json"


@contextmanager
def garbage() -> Iterator[Counter[str]]:
    """By type, all that the block leaves in cycles; to be read after the block."""
    found: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found.update(type(each).__name__ for each in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def talk(port: int, *parts: bytes, leave: bool = False) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.writelines(parts)
    content = b""
    if not leave:
        async with asyncio.timeout(10):
            content = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", content)
            content += await reader.readexactly(int(length[1])) if length else b""
    writer.close()
    await writer.wait_closed()
    return content


def request(line: str, *fields: str, body: bytes = b"") -> bytes:
    lines = [f"{line} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


LARGE = b'{"email": "x", "name": "y", "password": "' + 900_000 * b"x" + b'"}'
CONNECTIONS = {
    "silent": (b"", True),
    "half a head": (b"GET / HTTP/1.1\r\nX: " + 50_000 * b"x", True),
    "half a body": (request("POST /v1/users", JSON, body=LARGE)[:300_000], True),
    "whole": (request("GET /health"), False),
    "not HTTP": (b"GARBAGE\r\n\r\n", False),
    "unread body": (request("POST /v1/purchases", JSON, body=LARGE)[:300_000], False),
    "large head": (b"GET / HTTP/1.1\r\nX: " + 70_000 * b"x", False),
    "ahead": (1000 * request("GET /health"), False),
}


@sqlite_only
@pytest.mark.parametrize("name", CONNECTIONS)
async def test_connection_leaves_no_garbage(settings: Settings, resources: Resources, name: str):
    content, leave = CONNECTIONS[name]
    async with serving(create_app(settings), dict(resources)) as port:
        await talk(port, content, leave=leave)
        await settle(resources)
        with garbage() as found:
            for _ in range(TIMES):
                await talk(port, content, leave=leave)
            await settle(resources)

    assert not found & Counter({"HttpProtocol": 1, "RequestResponseCycle": 1, "dict": TIMES})


REQUESTS = {
    "whole": (request("GET /health"), 200),
    "path": (request("GET /v1/purchases/x"), 422),
    "query": (request("GET /v1/purchases?limit=x"), 422),
    "not found": (request("GET /v1/purchases/999999999", "Cache-Control: no-cache"), 404),
    "body": (request("POST /v1/users", JSON, body=LARGE), 422),
    "text": (request("POST /v1/users", JSON, body=b"x" * 900_000), 422),
    "login": (
        request("POST /v1/tokens", "Content-Type: application/x-www-form-urlencoded", body=b"a=b"),
        422,
    ),
}


@pytest.mark.parametrize("name", [*REQUESTS, "conflict", "key"])
async def test_request_that_fails_leaves_no_garbage(
    settings: Settings, resources: Resources, shop: Shop, name: str
):
    if name == "conflict":
        await shop.add_payer("Ann")
        authorization = f"Authorization: Bearer {shop.token}"
        content = request("POST /v1/payers", JSON, authorization, body=b'{"name": "Ann"}')
        status = 409
    elif name == "key":
        unknown = resources["api_keys"].make(1, 1)
        content, status = request("GET /v1/users/me", f"X-API-Key: {unknown}"), 401
    else:
        content, status = REQUESTS[name]
    async with serving(create_app(settings), dict(resources)) as port:
        for _ in range(3):  # what is made once is not of interest
            await talk(port, content)
        await settle(resources)
        with garbage() as found:
            for _ in range(TIMES):
                assert (await talk(port, content)).startswith(b"HTTP/1.1 %d " % status)
            await settle(resources)

    kept = {"frame", "traceback", "Request", "BoundedRequest", "RequestResponseCycle"}
    assert not kept & found.keys()


async def settle(resources: Resources) -> None:
    while resources["in_flight"]:
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)  # connections that are closed are forgotten by the loop


async def test_metrics_show_the_collector(client: httpx.AsyncClient, resources: Resources):
    names = ("collections", "objects_collected", "objects_uncollectable")

    async def counts() -> dict[str, Any]:
        samples = await scrape(client)
        found = {n: total(samples, f"python_gc_{n}_total", generation="2") for n in names}
        return found | {"pause": total(samples, "python_gc_pause_seconds_total")}

    before = await counts()
    for _ in range(100):
        cycle: list[Any] = []
        cycle.append(cycle)
    del cycle
    gc.collect()
    async with asyncio.timeout(10):
        while (after := await counts())["objects_collected"] < before["objects_collected"] + 99:
            await asyncio.sleep(0.05)

    assert after["collections"] > before["collections"]
    assert after["pause"] > before["pause"]
    assert after["objects_uncollectable"] == before["objects_uncollectable"]
