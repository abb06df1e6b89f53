"""A resource made as the README says, with columns of every ordinary type (tests/purchases)."""

import base64
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any, get_args
from uuid import UUID

import httpx2 as httpx
import pytest
from fastapi import APIRouter, FastAPI
from sqlalchemy import delete, insert

from app.settings import Settings
from chassis.clock import now
from chassis.database.engines import create_engine
from chassis.database.settings import DatabaseSettings
from chassis.http.application import include
from chassis.http.cached_responses import cached
from chassis.http.dependencies import Session
from chassis.http.routing import Route
from chassis.resources import Resources
from tests.conftest import client_of
from tests.databases import mariadb_only
from tests.purchases.model import Purchase
from tests.purchases.schema import PurchaseCreate, PurchaseRead, PurchaseSort, Status
from tests.service import create_app
from tests.shop import Shop

PURCHASE = {
    "number": "5a0e3c1e-2f3b-4c5d-8e6f-708192a3b4c5",
    "total": "9.90",
    "placed_at": "2026-03-01T09:30:00Z",
}


async def in_metadata(url: str, change: Any) -> None:
    engine = create_engine(DatabaseSettings(url=url), "maintenance")
    async with engine.begin() as connection:
        await connection.run_sync(change)
    await engine.dispose()


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    """Of this test: it may add routes."""
    return create_app(settings)


@pytest.fixture
async def client(app: FastAPI, resources: Resources) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app, resources) as client:
        yield client


@pytest.fixture
async def purchases(client: httpx.AsyncClient, resources: Resources) -> None:
    """Values that repeat, and NULLs, so that each list needs its tie."""
    some = [
        {
            "number": UUID(int=2**127 - 7919 * n),
            "status": ("sent", "open", "paid")[n % 3],
            "total": f"{n % 4}.{n % 2}0",
            "weight": (0.1, 0.30000000000000004, 1e-9, 12345.678)[n % 4],
            "gift": n % 3 == 0,
            "placed_at": f"2026-03-0{n % 5 + 1}T09:30:00{('', '.000001')[n % 2]}Z",
            "due": (None, "2026-03-08", "2025-12-31")[n % 3],
            "note": (None, "é", "Z", "a", "\U0001f381")[n % 5],
        }
        for n in range(11)
    ]
    rows = [PurchaseCreate.model_validate_json(json.dumps(o, default=str)) for o in some]
    async with resources["sessions"].write.begin() as session:
        await session.execute(insert(Purchase), [row.model_dump() for row in rows])


async def post(client: httpx.AsyncClient, token: str, body: dict[str, Any]) -> httpx.Response:
    return await client.post(
        "/v1/purchases", json=PURCHASE | body, headers={"Authorization": f"Bearer {token}"}
    )


@pytest.mark.parametrize("sort", get_args(PurchaseSort))
async def test_walk_by_any_column_sees_each_purchase_once_and_in_order(
    purchases: None, shop: Shop, sort: str
):
    everything = await shop.walk("/v1/purchases", limit=100)

    walked = await shop.walk("/v1/purchases", sort=sort, limit=2)

    def place(purchase: dict[str, Any]) -> tuple[bool, Any, int]:
        """NULLs come first, and ties are sorted by id."""
        value = getattr(PurchaseRead(**purchase), sort.removeprefix("-"))
        return value is not None, value or 0, purchase["id"]

    assert len(everything) == 11
    assert walked == sorted(everything, key=place, reverse=sort.startswith("-"))


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ({"total": "9.9"}, {"total": "9.90"}),
        ({"total": 9.9}, {"total": "9.90"}),
        ({"total": 1234567890}, {"total": "1234567890.00"}),
        ({"placed_at": "2026-03-01T11:30:00+02:00"}, {"placed_at": "2026-03-01T09:30:00Z"}),
        (
            {"placed_at": "2026-03-01T09:30:00.1234567-00:30"},
            {"placed_at": "2026-03-01T10:00:00.123456Z"},
        ),
        ({"due": "2026-03-08"}, {"due": "2026-03-08"}),
        ({"weight": 1}, {"weight": 1.0}),
        ({"weight": 0.1}, {"weight": 0.1}),
        ({"weight": 1.7976931348623157e308}, {"weight": 1.7976931348623157e308}),
        ({"gift": True, "status": "paid"}, {"gift": True, "status": "paid"}),
        ({"note": "  Ring twice "}, {"note": "Ring twice"}),
    ],
    ids=str,
)
async def test_post_and_patch_return_what_get_returns_and_its_tag(
    client: httpx.AsyncClient, shop: Shop, sent: dict[str, Any], stored: dict[str, Any]
):
    path = (await post(client, shop.token, {})).headers["Location"]
    number = {"number": str(UUID(int=7))}

    posted = await post(client, shop.token, sent | number)
    read = await client.get(posted.headers["Location"])
    patched = await shop.change(path, **sent)
    read_again = await client.get(path)

    for write, get in ((posted, read), (patched, read_again)):
        assert write.json() == get.json()
        assert write.headers["ETag"] == get.headers["ETag"]
        assert write.json() | stored == write.json()
    assert (posted.status_code, patched.status_code) == (201, 200)


@pytest.mark.parametrize(
    ("field", "values"),
    {
        "total": [True, "1,5", "", "NaN", "1e400", [], -1, "9.999", 9.999, "12345678901.00"],
        "placed_at": [1772357400, True, "2026-03-01", "yesterday", "2026-03-01T09:30:00", ""],
        "due": [20260301, "2026-03-01T09:30:00Z", "2026-02-30", "01.03.2026", True],
        "status": ["PAID", "lost", 1, None],
        "number": [7, "7", "", None],
        "weight": ["1", True, -0.5, None],
        "gift": [0, "true", None],
        "note": [7, "", "x" * 501],
        "id": [7],
    }.items(),
    ids=str,
)
async def test_other_values_are_refused_by_field(
    client: httpx.AsyncClient, shop: Shop, field: str, values: list[Any]
):
    path = (await post(client, shop.token, {})).headers["Location"]
    before = (await client.get(path)).json()

    for value in values:
        for response in (
            await post(client, shop.token, {"number": str(UUID(int=8)), field: value}),
            await shop.change(path, **{field: value}),
        ):
            assert response.status_code == 422, value
            assert response.json()["errors"][0]["loc"][:2] == ["body", field]

    assert (await client.get(path)).json() == before


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("status=paid", 3),
        ("total_from=2.5", 2),
        ("placed_from=2026-03-05T09:30:00Z", 2),
        ("placed_from=2026-03-05T11:30:00%2B02:00", 2),
        ("placed_from=2026-03-05T11:30:00.000001%2B02:00", 1),
    ],
)
async def test_filters_compare_as_their_types_do(
    purchases: None, client: httpx.AsyncClient, query: str, found: int
):
    first = await client.get(f"/v1/purchases?{query}")
    again = await client.get(f"/v1/purchases?{query}&sort=id&limit=20")

    assert len(first.json()["items"]) == found
    assert (first.headers["X-Cache"], again.headers["X-Cache"]) == ("MISS", "HIT")


@pytest.mark.parametrize(
    "query",
    [
        "placed_from=2026-03-05T09:30:00",
        "placed_from=0001-01-01T00:00:00%2B02:00",
        "placed_from=yesterday",
        "total_from=NaN",
        "total_from=1e30",
        "status=lost",
    ],
)
async def test_filters_of_other_values_are_refused(client: httpx.AsyncClient, query: str):
    response = await client.get(f"/v1/purchases?{query}")

    assert response.status_code == 422


NOT_CURSORS = {
    "id": [
        *('["id"]', '["id",true]', '["id","7"]', '["id",7.0]', '["id",-0]', '["id",null]'),
        *('["id",7,7,7]', '["id",9223372036854775808]', '["id",' + "9" * 3000 + "]", '["id", 7]'),
        *('["id",' + "[" * 255 + "]" * 255 + "]", '["id",{}]', "[]", "{}", "7", "null", "", "\0"),
        *('["id",7]x', '[["id"],7]', "[7,7]", '["id\\ud800",7]', '["id","\\ud800"]', "\ud800"),
    ],
    "total": [
        f'["total",{value},7]'
        for value in ("9.9", "true", '"x"', '"NaN"', '"1E+400"', '"1E+999999999"')
    ],
    "weight": [
        f'["weight",{value},7]'
        for value in ("NaN", "Infinity", "1e999", '"1.5"', "1", "1.50", "true")
    ],
    "gift": [f'["gift",{value},7]' for value in ("1", '"true"', "null")],
    "placed_at": [
        f'["placed_at","{value}",7]'
        for value in (
            *("2026-03-01T09:30:00", "2026-03-01T09:30:00+02:00", "2026-03-01T09:30:00+00:00"),
            *("0000-01-01T00:00:00Z", "0001-01-01T00:00:00+02:00", "9999-12-31T23:59:59-02:00"),
            *("10000-01-01T00:00:00Z", "1772357400", "2026-03-01", "2026-03-01T09:30:60Z"),
        )
    ],
    "due": [f'["due",{value},7]' for value in ("0", '"0000-01-01"', '"2026-02-30"', '""')],
    "number": [f'["number",{value},7]' for value in ("7", '"7"', f'"{UUID(int=7).hex}"')],
    "note": ['["note",7,7]', '["note","\\u0061",7]', '["note","\\ud800",7]'],
}


@pytest.mark.parametrize("sort", NOT_CURSORS)
async def test_what_is_no_cursor_is_refused(purchases: None, client: httpx.AsyncClient, sort: str):
    for text in NOT_CURSORS[sort]:
        cursor = base64.urlsafe_b64encode(text.encode(errors="surrogatepass")).decode()

        response = await client.get(
            "/v1/purchases", params={"sort": sort, "after": cursor.rstrip("=")}
        )

        assert response.status_code == 422, text
        assert response.json()["errors"][0]["loc"] == ["query", "after"]


@pytest.mark.parametrize("change", ["{}=", "{}A", " {}", "{}!", "é{}", "*"])
async def test_cursor_is_spelt_in_one_way(purchases: None, client: httpx.AsyncClient, change: str):
    cursor = (await client.get("/v1/purchases?limit=2")).json()["next"]

    same = await client.get("/v1/purchases", params={"after": cursor})
    changed = await client.get("/v1/purchases", params={"after": change.format(cursor)})

    assert (same.status_code, changed.status_code) == (200, 422)


@mariadb_only
@pytest.mark.parametrize(
    ("column", "value"), [("total", "12345678901"), ("note", "x" * 501), ("version", 2**31)]
)
async def test_what_only_the_database_refuses_is_the_clients_fault(
    app: FastAPI, client: httpx.AsyncClient, resources: Resources, column: str, value: Any
):
    """For schemas that allow more than the column holds."""

    @app.post("/lax")
    async def lax() -> None:
        body = PurchaseCreate.model_validate_json(json.dumps(PURCHASE)).model_dump()
        async with resources["sessions"].write.begin() as session:
            await session.execute(insert(Purchase).values(**body | {column: value}))

    response = await client.post("/lax")

    assert response.status_code == 422
    assert response.json()["errors"][0]["loc"] == ["body", column]
    assert "INSERT" not in response.text


async def test_a_time_without_offset_is_refused_with_the_reason(client: httpx.AsyncClient):
    response = await client.get("/v1/purchases?placed_from=2026-03-05T09:30:00")

    assert "has no offset" in response.json()["detail"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_session_of_a_safe_method_cannot_write(
    app: FastAPI, client: httpx.AsyncClient, shop: Shop, method: str
):
    @app.api_route("/careless", methods=["GET", "HEAD"])
    async def careless(session: Session) -> None:
        await session.execute(delete(Purchase))
        await session.commit()

    path = (await post(client, shop.token, {})).headers["Location"]
    response = await client.request(method, "/careless")

    assert response.status_code == 500
    assert (await client.get(path)).status_code == 200


async def test_integers_of_more_than_64_bits_are_the_clients_fault(
    app: FastAPI, client: httpx.AsyncClient, resources: Resources
):
    @app.get("/lax")
    async def lax(version: int) -> None:
        async with resources["sessions"].read() as session:
            await session.execute(Purchase.__table__.select().where(Purchase.version == version))

    response = await client.get(f"/lax?version={2**70}")

    assert response.status_code == 422


async def test_an_id_that_is_spelt_otherwise_than_in_tags_is_not_cached(
    app: FastAPI, client: httpx.AsyncClient, resources: Resources
):
    """Else a write would not invalidate it."""
    numbers = APIRouter(prefix="/v1/numbers", route_class=Route)

    @numbers.get("/{number}")
    @cached(ttl=60, tags=["number:{number}"])
    async def get_number(number: UUID, status: Status = Status.OPEN, gift: bool = False) -> str:
        return f"{number} {status} {gift}"

    include(app, numbers)
    number = PURCHASE["number"]
    same = [f"/v1/numbers/{number}{query}" for query in ("", "?status=open", "?gift=false")]
    other = f"/v1/numbers/{number.upper()}"

    cached_answers = [await client.get(path) for path in same]
    responses = [await client.get(other) for _ in range(2)]
    async with resources["cache"].invalidating(f"number:{number}"):
        pass
    after = await client.get(same[0])

    assert [a.headers["X-Cache"] for a in (*cached_answers, after)] == [
        "MISS",
        "HIT",
        "HIT",
        "MISS",
    ]
    assert [(a.status_code, a.headers.get("X-Cache")) for a in responses] == [(200, None)] * 2
    assert responses[0].text == after.text


def test_bodies_are_made_in_python_of_python_values():
    values: Any = {"number": UUID(int=7), "total": Decimal("9.90"), "placed_at": now()}

    assert PurchaseCreate(**values).model_dump(exclude_unset=True) == values
    with pytest.raises(ValueError, match="Decimal"):
        PurchaseCreate(**values | {"total": "9.90"})
