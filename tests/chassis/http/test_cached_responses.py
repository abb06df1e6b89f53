"""What clients and caches in between see of the cache."""

import asyncio
from typing import Any

import httpx2 as httpx
import pytest
from fastapi import APIRouter, FastAPI, Request, Response
from sqlalchemy import update

from app.authentication import Editor
from app.settings import Settings
from chassis.errors import Unavailable
from chassis.http.application import include
from chassis.http.cached_responses import cached
from chassis.http.routing import Route
from chassis.problems.response import problem
from chassis.resources import Resources
from tests.conftest import client_of
from tests.purchases.model import Purchase
from tests.queries import recorded
from tests.service import create_app
from tests.shop import Shop


@pytest.fixture
async def path(shop: Shop) -> str:
    return f"/v1/purchases/{(await shop.add_purchase())['id']}"


async def states(client: httpx.AsyncClient, *paths: str) -> list[str]:
    return [(await client.get(path)).headers["X-Cache"] for path in paths]


async def test_second_answer_is_the_same_and_asks_no_database(
    client: httpx.AsyncClient, resources: Resources, path: str
):
    miss = await client.get(path)
    with recorded(resources["sessions"]) as queries:
        hit = await client.get(path)

    assert (miss.headers["X-Cache"], hit.headers["X-Cache"]) == ("MISS", "HIT")
    assert hit.content == miss.content
    assert queries == []
    for name in ("Content-Type", "ETag", "Cache-Control", "Vary", "Content-Length"):
        assert hit.headers[name] == miss.headers[name]
    assert hit.headers["Cache-Control"] == "public, no-cache"
    assert hit.headers["Vary"] == "Authorization, X-API-Key"
    assert int(hit.headers["Age"]) >= 0


async def test_hit_costs_one_command(client: httpx.AsyncClient, path: str):
    await client.get(path)

    timing = (await client.get(path)).headers["Server-Timing"]

    assert 'desc="cache x1"' in timing
    assert "db" not in timing


@pytest.mark.parametrize("sent", ["{etag}", "W/{etag}", '"other", {etag}', "*"])
async def test_client_that_has_it_gets_304_without_a_body(
    client: httpx.AsyncClient, path: str, sent: str
):
    first = await client.get(path)
    etag = first.headers["ETag"]
    response = await client.get(path, headers={"If-None-Match": sent.format(etag=etag)})

    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["ETag"] == etag
    # RFC 9110, 15.4.5: what the 200 would have said of caches.
    for name in ("Cache-Control", "Vary"):
        assert response.headers[name] == first.headers[name]
    assert "Content-Type" not in response.headers


async def test_client_that_has_an_older_one_gets_the_new_one(
    client: httpx.AsyncClient, shop: Shop, path: str
):
    old = (await client.get(path)).headers["ETag"]
    await shop.change(path, note="Another")

    response = await client.get(path, headers={"If-None-Match": old})

    assert response.status_code == 200
    assert response.headers["ETag"] != old


async def test_head_says_what_get_would_and_shares_its_entry(client: httpx.AsyncClient, path: str):
    head = await client.head(path)
    got = await client.get(path)

    assert (head.status_code, head.headers["X-Cache"], got.headers["X-Cache"]) == (
        200,
        "MISS",
        "HIT",
    )
    for name in ("Content-Length", "Content-Type", "ETag"):
        assert head.headers[name] == got.headers[name]


async def test_head_of_what_is_not_cached(client: httpx.AsyncClient):
    assert (await client.head("/health")).status_code == 200
    assert (await client.head("/health/ready")).status_code == 200
    assert (await client.head("/v1/nothing")).status_code == 404


@pytest.mark.parametrize("control", ["no-cache", "no-store", "max-age=0, no-cache"])
async def test_client_can_have_it_from_the_database(
    client: httpx.AsyncClient, resources: Resources, path: str, control: str
):
    await client.get(path)
    purchase_id = int(path.rpartition("/")[2])
    async with resources["sessions"].write.begin() as session:  # behind the back of the cache
        await session.execute(
            update(Purchase).where(Purchase.id == purchase_id).values(note="Corrected")
        )

    response = await client.get(path, headers={"Cache-Control": control})

    assert (response.headers["X-Cache"], response.json()["note"]) == ("BYPASS", "Corrected")


async def test_answer_to_an_account_is_neither_stored_nor_taken_from_the_cache(
    client: httpx.AsyncClient, shop: Shop, path: str
):
    response = await client.get(path, headers=shop.editor)

    assert response.headers["X-Cache"] == "BYPASS"
    assert response.headers["Cache-Control"] == "private, no-store"
    assert await states(client, path) == ["MISS"]


@pytest.mark.parametrize("value", ["of mine", "Basic YTpi", "Bearer junk", "Bearer a.b.c", ""])
async def test_credentials_that_open_no_account_are_no_way_past_the_cache(
    client: httpx.AsyncClient, path: str, value: str
):
    first, second = [await client.get(path, headers={"Authorization": value}) for _ in range(2)]

    assert [first.headers["X-Cache"], second.headers["X-Cache"]] == ["MISS", "HIT"]
    assert second.headers["Cache-Control"] == "public, no-cache"
    assert await states(client, path) == ["HIT"]


async def test_answers_to_writes_are_for_nobody_else(
    client: httpx.AsyncClient, shop: Shop, path: str
):
    changed = await shop.change(path, note="Another")
    refused = await client.patch(path, json={"note": "Mine"})

    assert changed.headers["Cache-Control"] == "private, no-store"
    assert (refused.status_code, refused.headers["Cache-Control"]) == (401, "no-store")


async def test_order_of_parameters_and_what_is_said_anyway_make_no_difference(
    client: httpx.AsyncClient,
):
    same = ["?limit=20&sort=total", "?sort=total&limit=20", "?sort=total", "?sort=%74otal"]

    assert await states(client, *(f"/v1/purchases{query}" for query in same)) == [
        "MISS",
        *["HIT"] * 3,
    ]
    assert await states(client, "/v1/purchases?sort=id&limit=20", "/v1/purchases") == [
        "MISS",
        "HIT",
    ]


async def test_value_none_is_not_the_absence_of_a_value(
    client: httpx.AsyncClient, shop: Shop, path: str
):
    await shop.add_purchase("None")
    found = await client.get("/v1/purchases?note=None")
    everything = await client.get("/v1/purchases")

    assert len(found.json()["items"]) == 1
    assert (len(everything.json()["items"]), everything.headers["X-Cache"]) == (2, "MISS")
    await client.get("/v1/purchases/totals")
    assert (await client.get("/v1/purchases/totals?limit=None")).status_code == 422
    for name in ("after", "payer_id", "total_from", "placed_from"):
        assert (await client.get(f"/v1/purchases?{name}=None")).status_code == 422


async def test_cursor_has_one_spelling(client: httpx.AsyncClient, shop: Shop):
    for n in range(2):
        await shop.add_purchase(f"Note {n}")
    cursor = (await client.get("/v1/purchases?limit=1")).json()["next"]

    assert (await client.get(f"/v1/purchases?after={cursor}")).status_code == 200
    for other in (f"{cursor}!!", f"{cursor}....", f"{cursor}="):
        assert (await client.get("/v1/purchases", params={"after": other})).status_code == 422


@pytest.mark.parametrize(
    "junk",
    ["?x=1", "?limit=020", "?limit=+20", "?limit=2_0", "?limit=20.0", "?limit=20&limit=20"],
)
async def test_junk_parameters_make_no_entry(
    client: httpx.AsyncClient, resources: Resources, junk: str
):
    refused = [await client.get(f"/v1/purchases{junk}") for _ in range(2)]

    assert [response.status_code for response in refused] == [422, 422]
    assert await entries(resources) == []


@pytest.mark.parametrize("id", ["007", "+7", "7.0", "1_0", " 7", "\u0667"])
async def test_a_purchase_has_one_path(client: httpx.AsyncClient, resources: Resources, id: str):
    assert (await client.get(f"/v1/purchases/{id}")).status_code == 422
    assert await entries(resources) == await entries(resources, "tag") == []


async def entries(resources: Resources, kind: str = "entry") -> list[bytes]:
    namespace = resources["settings"].cache.namespace
    return [key async for key in resources["redis"].scan_iter(f"{namespace}:{kind}:*")]


async def test_missing_is_cached_until_it_is_there(client: httpx.AsyncClient, shop: Shop):
    purchase = await shop.add_purchase()
    after = f"/v1/purchases/{purchase['id'] + 1}"
    missing = [await client.get(after) for _ in range(2)]
    await shop.add_purchase("The next one")

    assert [response.headers["X-Cache"] for response in missing] == ["MISS", "HIT"]
    assert [response.status_code for response in missing] == [404, 404]
    assert missing[1].headers["Cache-Control"] == "public, no-cache"
    for response in missing:  # whose problem it is, not that of the first who had it
        assert response.json()["request_id"] == response.headers["X-Request-ID"]
    assert (await client.get(after)).json()["note"] == "The next one"


async def test_what_is_deleted_is_gone_from_the_cache(
    client: httpx.AsyncClient, shop: Shop, path: str
):
    await client.get(path)
    await client.delete(path, headers=shop.editor)

    assert (await client.get(path)).status_code == 404


async def test_change_shows_wherever_it_is_shown(client: httpx.AsyncClient, shop: Shop, path: str):
    shown = [path, "/v1/purchases", "/v1/purchases?limit=1"]
    await states(client, *shown)
    assert await states(client, *shown) == ["HIT"] * 3

    await shop.change(path, note="Another")

    for each in shown:
        response = await client.get(each)
        assert (response.headers["X-Cache"], "Another" in response.text) == ("MISS", True), each


async def test_change_of_one_resource_leaves_the_others_in_the_cache(
    client: httpx.AsyncClient, shop: Shop, path: str
):
    payer_id = await shop.add_payer("Nobody yet")
    own = [f"/v1/payers/{payer_id}", "/v1/payers"]
    await states(client, path, *own)

    await shop.change(own[0], name="Nobody")

    assert await states(client, path, *own) == ["HIT", "MISS", "MISS"]


async def test_heavy_aggregate_is_calculated_once_whatever_a_request_says(
    client: httpx.AsyncClient, shop: Shop, resources: Resources, path: str
):
    """Past the cache of answers there is still that of the service."""
    words: list[dict[str, str]] = [
        {"Cache-Control": "no-cache"},
        {"Cache-Control": "No-Store"},
        {"Authorization": "junk"},
        {"Authorization": "Bearer junk", "Cache-Control": "no-cache"},
        shop.editor,
        shop.editor | {"Cache-Control": "no-cache"},
    ]
    with recorded(resources["sessions"]) as queries:
        responses = [await client.get("/v1/purchases/totals", headers=each) for each in words * 3]
        tag = {"If-None-Match": responses[0].headers["ETag"], "Cache-Control": "no-cache"}
        unchanged = await client.get("/v1/purchases/totals", headers=tag)

    for response in responses:
        assert response.json()["items"] == [{"status": "open", "count": 1, "total": "9.90"}]
    assert unchanged.status_code == 304
    assert len(queries) == 1


async def test_aggregate_may_be_kept_by_browsers_and_share_one_calculation(
    client: httpx.AsyncClient, resources: Resources
):
    first = await client.get("/v1/purchases/totals?limit=3")
    with recorded(resources["sessions"]) as queries:
        await client.get("/v1/purchases/totals?limit=4")

    assert first.headers["Cache-Control"] == "public, max-age=60, stale-while-revalidate=300"
    assert queries == []


@pytest.fixture
def application(settings: Settings) -> FastAPI:
    """With a route that answers as it is told."""
    app = create_app(settings)
    router = APIRouter(route_class=Route)

    @router.get("/told")
    @cached(ttl=0.02, stale=60, tags=["told"])
    async def get_told(request: Request, response: Response) -> dict[str, Any]:
        app.state.calls += 1
        if app.state.error is not None:
            raise app.state.error
        response.headers.update(app.state.headers)
        if app.state.status is not None:
            await asyncio.sleep(0.02)
            return problem(app.state.status, "No", request.scope)  # type: ignore[return-value]
        return {"calls": app.state.calls}

    @router.get("/named/{name}")
    @cached(ttl=60, tags=["named"])
    async def get_named(name: str, x: str = "") -> list[str]:
        return [name, x]

    include(app, router)
    app.state.calls, app.state.error, app.state.status, app.state.headers = 0, None, None, {}
    return app


async def test_headers_of_the_handler_are_kept(application: FastAPI, resources: Resources):
    application.state.headers = {"X-Own": "kept", "X-Empty": ""}
    async with client_of(application, resources) as client:
        responses = [await client.get("/told") for _ in range(2)]

    assert [response.headers["X-Own"] for response in responses] == ["kept", "kept"]
    assert [response.headers["X-Empty"] for response in responses] == ["", ""]
    assert responses[0].content == responses[1].content


@pytest.mark.parametrize(
    "own", [{"Set-Cookie": "session=secret"}, {"Cache-Control": "private, max-age=5"}]
)
async def test_answer_for_one_client_is_not_stored(
    application: FastAPI, resources: Resources, own: dict[str, str]
):
    application.state.headers = own
    async with client_of(application, resources) as client:
        responses = [await client.get("/told") for _ in range(2)]
        bypassing = await client.get("/told", headers={"Cache-Control": "no-cache"})

    assert [response.json()["calls"] for response in responses] == [1, 2]

    if "Cache-Control" not in own:
        assert responses[0].headers["Cache-Control"] == "private, no-store"
    for name, value in own.items():
        assert responses[0].headers.get_list(name) == [value]
        assert bypassing.headers.get_list(name) == [value]


async def test_path_with_a_question_mark_is_not_a_query(application: FastAPI, resources: Resources):
    async with client_of(application, resources) as client:
        query = await client.get("/named/a?x=1")
        path = await client.get("/named/a%3Fx=1")

    assert (query.json(), path.json()) == (["a", "1"], ["a?x=1", ""])


async def test_errors_are_not_stored(application: FastAPI, resources: Resources):
    application.state.error = Unavailable("Not now")
    async with client_of(application, resources) as client:
        refused = [await client.get("/told") for _ in range(2)]
        application.state.error = None
        response = await client.get("/told")

    assert [each.status_code for each in refused] == [503, 503]
    assert (response.status_code, response.headers["X-Cache"]) == (200, "MISS")


async def test_other_statuses_are_not_stored(application: FastAPI, resources: Resources):
    application.state.status = 409
    async with client_of(application, resources) as client:
        responses = await asyncio.gather(*(client.get("/told") for _ in range(3)))

    assert [response.status_code for response in responses] == [409, 409, 409]
    for response in responses:  # each his own, also who has waited for another's
        assert response.json()["request_id"] == response.headers["X-Request-ID"]


async def test_stale_answer_is_served_while_the_handler_runs_for_a_new_one(
    application: FastAPI, resources: Resources
):
    async with client_of(application, resources) as client:
        await client.get("/told")
        await asyncio.sleep(0.03)
        stale = await client.get("/told")
        async with asyncio.timeout(10):
            while (fresh := await client.get("/told")).json()["calls"] == 1:
                await asyncio.sleep(0)

    assert (stale.headers["X-Cache"], stale.json()) == ("STALE", {"calls": 1})
    assert fresh.json()["calls"] > 1


def test_cached_route_must_say_what_it_returns():
    router = APIRouter(route_class=Route)

    with pytest.raises(TypeError, match="annotate what it returns"):

        @router.get("/anything")
        @cached(ttl=1, tags=["anything"])
        async def get_anything(): ...


@pytest.mark.parametrize("path", ["/written", "/private"])
def test_only_a_get_without_a_token_can_be_cached(path: str):
    router = APIRouter(route_class=Route)
    add = {"/written": router.post, "/private": router.get}[path]

    with pytest.raises(TypeError, match="must be a GET without an access token"):

        @add(path, dependencies=[] if path == "/written" else [Editor])
        @cached(ttl=1)
        async def handler() -> dict[str, str]:
            return {}
