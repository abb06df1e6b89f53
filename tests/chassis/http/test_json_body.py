"""JSON for handlers of all shapes: one body, lists, several parameters, with and without models."""

import json
from collections.abc import AsyncIterator
from datetime import datetime, time
from decimal import Decimal
from typing import Annotated, Any

import httpx2 as httpx
import pytest
from fastapi import APIRouter, Body, Depends, FastAPI

from app.settings import Settings
from chassis.http.application import include
from chassis.http.json_body import MANY_MEMBERS, MAX_FAULTS
from chassis.http.routing import Route
from chassis.resources import Resources
from chassis.schemas import fields as base
from tests.conftest import Servers, client_of
from tests.databases import sqlite_only
from tests.service import create_app

pytestmark = sqlite_only

LONG = "12345678901234567.89"  # as a float it would end in 68


class Item(base.Body):
    price: Decimal | None = None
    weight: float | None = None
    count: int | None = None
    at: datetime | None = None
    clock: time | None = None
    type: str | None = None
    parts: list["Item"] = []


router = APIRouter(prefix="/v1/echo", route_class=Route)


async def read_item(item: Item) -> Item:
    return item


@router.post("/one")
async def post_one(item: Item) -> str:
    return repr(item)


@router.post("/optional")
async def post_optional(item: Item | None = None) -> str:
    return repr(item)


@router.post("/list")
async def post_list(items: list[Item]) -> str:
    return repr(items)


@router.post("/two")
async def post_two(item: Item, price: Annotated[Decimal, Body()]) -> str:
    return f"{item!r} {price!r}"


@router.post("/embedded")
async def post_embedded(item: Annotated[Item, Body(embed=True)]) -> str:
    return repr(item)


@router.post("/dependency")
async def post_dependency(item: Annotated[Item, Depends(read_item)]) -> str:
    return repr(item)


@router.post("/dict")
async def post_dict(prices: dict[str, Decimal]) -> str:
    return repr(prices)


@pytest.fixture(scope="module", params=["include", "include_router"])
def app(request: pytest.FixtureRequest, servers: Servers) -> FastAPI:
    url = f"sqlite+aiosqlite:///{servers.folder}/unused.db"
    settings = Settings(_env_file=None, database={"url": url}, redis={"url": "redis://127.0.0.1"})
    app = create_app(settings)
    if request.param == "include":
        include(app, router)
    else:
        app.include_router(router)
    return app


@pytest.fixture
async def client(app: FastAPI, resources: Resources) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app, resources) as client:
        yield client


async def post(client: httpx.AsyncClient, name: str, body: str | bytes) -> httpx.Response:
    headers = {"Content-Type": "application/json"}
    return await client.post(f"/v1/echo/{name}", content=body, headers=headers)


# ITEM is where each has an item.
SHAPES = {
    "one": "ITEM",
    "optional": "ITEM",
    "list": '[{"count": 1}, ITEM]',
    "two": '{"item": ITEM, "price": 1}',
    "embedded": '{"item": ITEM}',
    "dependency": "ITEM",
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_numbers_keep_their_digits_and_times_their_offset(
    client: httpx.AsyncClient, shape: str
):
    at = "2026-03-01T11:30:00+02:00"
    item = f'{{"price": {LONG}, "weight": {LONG}, "at": "{at}", "type": "{LONG}"}}'

    response = await post(client, shape, SHAPES[shape].replace("ITEM", item))

    assert response.status_code == 200, response.text
    assert f"price=Decimal('{LONG}')" in response.text
    assert "weight=1.2345678901234568e+16" in response.text
    assert "2026, 3, 1, 11, 30" in response.text
    assert f"type='{LONG}'" in response.text


@pytest.mark.parametrize("shape", SHAPES)
async def test_faults_say_where_they_are(client: httpx.AsyncClient, shape: str):
    inners: dict[str, list[Any]] = {"list": [1], "two": ["item"], "embedded": ["item"]}
    inner = inners.get(shape, [])
    item = '{"count": "1", "bogus": 1, "parts": [{"count": 1.0}]}'

    response = await post(client, shape, SHAPES[shape].replace("ITEM", item))

    assert response.status_code == 422
    assert [error["loc"] for error in response.json()["errors"]] == [
        ["body", *inner, "count"],
        ["body", *inner, "parts", 0, "count"],
        ["body", *inner, "bogus"],
    ]


WRONG = [
    '{"weight": NaN}',
    '{"weight": -Infinity}',
    '{"weight": 1e999}',
    '{"price": NaN}',
    '{"count": 1e2}',
    '{"count": 9223372036854775808}',
    '{"count": ' + "9" * 5000 + "}",
    '{"at": "2026-03-01T09:30:00"}',
    '{"clock": "09:30:00Z"}',
    '{"type": "\\ud800"}',
    '{"count": 1,}',
    '{"count"}',
    "{",
    "[]",
    "7",
    "{'count': 1}",
    '{"a": ' + "[" * 9999,
]


@pytest.mark.parametrize("shape", SHAPES)
async def test_what_is_not_right_is_refused_in_every_shape(client: httpx.AsyncClient, shape: str):
    for value in WRONG:
        response = await post(client, shape, SHAPES[shape].replace("ITEM", value))

        assert response.status_code == 422, value[:50]
        assert response.json()["errors"][0]["loc"][0] == "body"


@pytest.mark.parametrize(
    ("shape", "body", "text"),
    [
        ("one", b'\xef\xbb\xbf{"count": 1}', "count=1"),
        ("one", '{"count": 1, "count": 2}', "count=2"),
        ("one", '{"price": 0.1, "weight": 5.0}', "price=Decimal('0.1'), weight=5.0"),
        ("one", f'{{"type": "x{LONG}", "weight": 5.0}}', "weight=5.0"),
        ("optional", "null", "None"),
        ("optional", "", "None"),
        ("dict", f'{{"a": {LONG}}}', f"Decimal('{LONG}')"),
    ],
)
async def test_what_clients_may_send_as_well(
    client: httpx.AsyncClient, shape: str, body: str | bytes, text: str
):
    response = await post(client, shape, body)

    assert response.status_code == 200, response.text
    assert text in response.text


async def test_a_body_is_parsed_after_its_sender_is_known(client: httpx.AsyncClient):
    headers = {"Content-Type": "application/json"}

    response = await client.post("/v1/purchases", content="{", headers=headers)

    assert response.status_code == 401


async def test_of_many_unknown_fields_the_first_are_listed_and_all_are_counted(
    client: httpx.AsyncClient,
):
    count = 20 * MANY_MEMBERS
    body = {"count": "1", **{f"unknown_{n}": n for n in range(count)}}

    response = await post(client, "one", json.dumps(body))

    errors = response.json()["errors"]
    assert response.status_code == 422
    assert errors[0]["loc"] == ["body", "count"]
    assert f"{count} unknown fields" in errors[1]["msg"]
    assert errors[2]["loc"] == ["body", "unknown_0"]
    assert len(errors) <= 21


async def test_more_faults_than_can_be_listed_are_counted(client: httpx.AsyncClient):
    items = [{"count": "1"}] * (MAX_FAULTS + 1)

    response = await post(client, "list", json.dumps(items))

    assert response.status_code == 422
    assert response.json()["errors"] == [
        {"loc": ["body"], "msg": f"Has {MAX_FAULTS + 1} faults", "type": "too_many_faults"}
    ]


async def test_a_large_body_of_known_fields_is_taken(client: httpx.AsyncClient):
    parts: list[Any] = [{"count": n} for n in range(2 * MANY_MEMBERS)]

    response = await post(client, "one", json.dumps({"parts": parts}))

    assert response.status_code == 200
    assert response.text.count("count=") == 2 * MANY_MEMBERS + 1
