"""What clients and caches in between see of the cache."""

import asyncio
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, FastAPI, Request, Response
from sqlalchemy import update

from app.cached_responses import cached
from app.errors import Unavailable, problem
from app.main import create_app
from app.models import Book
from app.resources import Resources
from app.routing import Route, include
from app.settings import Settings
from tests.catalogue import Catalogue
from tests.conftest import client_of
from tests.queries import recorded


@pytest.fixture
async def path(catalogue: Catalogue) -> str:
    return f"/v1/books/{(await catalogue.add_book())['id']}"


async def states(client: httpx2.AsyncClient, *paths: str) -> list[str]:
    return [(await client.get(path)).headers["X-Cache"] for path in paths]


async def test_second_answer_is_the_same_and_asks_no_database(
    client: httpx2.AsyncClient, resources: Resources, path: str
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
    assert hit.headers["Vary"] == "Authorization"
    assert int(hit.headers["Age"]) >= 0


async def test_hit_costs_one_command(client: httpx2.AsyncClient, path: str):
    await client.get(path)

    timing = (await client.get(path)).headers["Server-Timing"]

    assert 'desc="cache x1"' in timing
    assert "db" not in timing


@pytest.mark.parametrize("sent", ["{etag}", "W/{etag}", '"other", {etag}', "*"])
async def test_client_that_has_it_gets_304_without_a_body(
    client: httpx2.AsyncClient, path: str, sent: str
):
    first = await client.get(path)
    etag = first.headers["ETag"]
    answer = await client.get(path, headers={"If-None-Match": sent.format(etag=etag)})

    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["ETag"] == etag
    # RFC 9110, 15.4.5: what the 200 would have said of caches.
    for name in ("Cache-Control", "Vary"):
        assert answer.headers[name] == first.headers[name]
    assert "Content-Type" not in answer.headers


async def test_client_that_has_an_older_one_gets_the_new_one(
    client: httpx2.AsyncClient, catalogue: Catalogue, path: str
):
    old = (await client.get(path)).headers["ETag"]
    await catalogue.change(path, title="Another")

    answer = await client.get(path, headers={"If-None-Match": old})

    assert answer.status_code == 200
    assert answer.headers["ETag"] != old


async def test_head_says_what_get_would_and_shares_its_entry(client: httpx2.AsyncClient, path: str):
    head = await client.head(path)
    got = await client.get(path)

    assert (head.status_code, head.headers["X-Cache"], got.headers["X-Cache"]) == (
        200,
        "MISS",
        "HIT",
    )
    for name in ("Content-Length", "Content-Type", "ETag"):
        assert head.headers[name] == got.headers[name]


async def test_head_of_what_is_not_cached(client: httpx2.AsyncClient):
    assert (await client.head("/health")).status_code == 200
    assert (await client.head("/health/ready")).status_code == 200
    assert (await client.head("/v1/nothing")).status_code == 404


@pytest.mark.parametrize("control", ["no-cache", "no-store", "max-age=0, no-cache"])
async def test_client_can_have_it_from_the_database(
    client: httpx2.AsyncClient, resources: Resources, path: str, control: str
):
    await client.get(path)
    book_id = int(path.rpartition("/")[2])
    async with resources["sessions"].write.begin() as session:  # behind the back of the cache
        await session.execute(update(Book).where(Book.id == book_id).values(title="Corrected"))

    answer = await client.get(path, headers={"Cache-Control": control})

    assert (answer.headers["X-Cache"], answer.json()["title"]) == ("BYPASS", "Corrected")


@pytest.mark.parametrize("header", ["Authorization"])
async def test_answer_to_somebody_is_neither_stored_nor_taken_from_the_cache(
    client: httpx2.AsyncClient, path: str, header: str
):
    answer = await client.get(path, headers={header: "of mine"})

    assert answer.headers["X-Cache"] == "BYPASS"
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert await states(client, path) == ["MISS"]


async def test_answers_to_writes_are_for_nobody_else(
    client: httpx2.AsyncClient, catalogue: Catalogue, path: str
):
    changed = await catalogue.change(path, title="Another")
    refused = await client.patch(path, json={"title": "Mine"})

    assert changed.headers["Cache-Control"] == "private, no-store"
    assert (refused.status_code, refused.headers["Cache-Control"]) == (401, "no-store")


async def test_order_of_parameters_and_what_is_said_anyway_make_no_difference(
    client: httpx2.AsyncClient,
):
    same = ["?limit=20&sort=title", "?sort=title&limit=20", "?sort=title", "?sort=%74itle"]

    assert await states(client, *(f"/v1/books{query}" for query in same)) == [
        "MISS",
        *["HIT"] * 3,
    ]
    assert await states(client, "/v1/books?sort=id&limit=20", "/v1/books") == ["MISS", "HIT"]


async def test_value_none_is_not_the_absence_of_a_value(
    client: httpx2.AsyncClient, catalogue: Catalogue, path: str
):
    await catalogue.add_book("None of us")
    found = await client.get("/v1/books?q=None")
    everything = await client.get("/v1/books")

    assert len(found.json()["items"]) == 1
    assert (len(everything.json()["items"]), everything.headers["X-Cache"]) == (2, "MISS")
    await client.get("/v1/rankings/books")
    assert (await client.get("/v1/rankings/books?limit=None")).status_code == 422
    for name in ("after", "author_id", "year_from", "year_to"):
        assert (await client.get(f"/v1/books?{name}=None")).status_code == 422


async def test_cursor_has_one_spelling(client: httpx2.AsyncClient, catalogue: Catalogue):
    for n in range(2):
        await catalogue.add_book(f"Book {n}")
    cursor = (await client.get("/v1/books?limit=1")).json()["next"]

    assert (await client.get(f"/v1/books?after={cursor}")).status_code == 200
    for other in (f"{cursor}!!", f"{cursor}....", f"{cursor}="):
        assert (await client.get("/v1/books", params={"after": other})).status_code == 422


@pytest.mark.parametrize(
    "junk",
    ["?x=1", "?limit=020", "?limit=+20", "?limit=2_0", "?limit=20.0", "?limit=20&limit=20"],
)
async def test_junk_parameters_make_no_entry(
    client: httpx2.AsyncClient, resources: Resources, junk: str
):
    refused = [await client.get(f"/v1/books{junk}") for _ in range(2)]

    assert [answer.status_code for answer in refused] == [422, 422]
    assert await entries(resources) == []


@pytest.mark.parametrize("id", ["007", "+7", "7.0", "1_0", " 7", "\u0667"])
async def test_a_book_has_one_path(client: httpx2.AsyncClient, resources: Resources, id: str):
    assert (await client.get(f"/v1/books/{id}")).status_code == 422
    assert await entries(resources) == await entries(resources, "tag") == []


async def entries(resources: Resources, kind: str = "entry") -> list[bytes]:
    namespace = resources["settings"].cache.namespace
    return [key async for key in resources["redis"].scan_iter(f"{namespace}:{kind}:*")]


async def test_missing_is_cached_until_it_is_there(
    client: httpx2.AsyncClient, catalogue: Catalogue
):
    book = await catalogue.add_book()
    after = f"/v1/books/{book['id'] + 1}"
    missing = [await client.get(after) for _ in range(2)]
    await catalogue.add_book("The next one", author_ids=[book["authors"][0]["id"]])

    assert [answer.headers["X-Cache"] for answer in missing] == ["MISS", "HIT"]
    assert [answer.status_code for answer in missing] == [404, 404]
    assert missing[1].headers["Cache-Control"] == "public, no-cache"
    for answer in missing:  # whose problem it is, not that of the first who had it
        assert answer.json()["request_id"] == answer.headers["X-Request-ID"]
    assert (await client.get(after)).json()["title"] == "The next one"


async def test_deleted_book_is_gone_from_the_cache(
    client: httpx2.AsyncClient, catalogue: Catalogue, path: str
):
    await client.get(path)
    await client.delete(path, headers=catalogue.editor)

    assert (await client.get(path)).status_code == 404


async def test_change_of_a_book_shows_wherever_it_is_shown(
    client: httpx2.AsyncClient, catalogue: Catalogue, resources: Resources, path: str
):
    book_id = int(path.rpartition("/")[2])
    async with resources["sessions"].write.begin() as session:
        rated = {"ratings_count": 1, "ratings_sum": 5}
        await session.execute(update(Book).where(Book.id == book_id).values(rated))
    shown = [path, "/v1/books", "/v1/books?limit=1", "/v1/rankings/books"]
    await states(client, *shown)
    assert await states(client, *shown) == ["HIT"] * 4

    await catalogue.change(path, title="Another")

    for each in shown:
        answer = await client.get(each)
        assert (answer.headers["X-Cache"], "Another" in answer.text) == ("MISS", True), each


async def test_new_name_of_an_author_shows_wherever_it_is_shown(
    client: httpx2.AsyncClient, catalogue: Catalogue, path: str
):
    author_id = (await client.get(path)).json()["authors"][0]["id"]
    shown = [path, "/v1/books", f"/v1/authors/{author_id}", "/v1/authors"]
    await states(client, *shown)

    await catalogue.change(f"/v1/authors/{author_id}", name="George Eliot")

    for each in shown:
        assert "George Eliot" in (await client.get(each)).text, each


async def test_author_without_books_leaves_books_in_the_cache(
    client: httpx2.AsyncClient, catalogue: Catalogue, path: str
):
    await client.get(path)
    author_id = await catalogue.add_author("Nobody yet")
    await catalogue.change(f"/v1/authors/{author_id}", name="Nobody")

    assert await states(client, path) == ["HIT"]


async def test_bypass_goes_past_the_cache_of_the_service_too(
    client: httpx2.AsyncClient, resources: Resources, path: str
):
    book_id = int(path.rpartition("/")[2])
    await client.get("/v1/rankings/books")
    async with resources["sessions"].write.begin() as session:  # behind the back of the cache
        rated = {"ratings_count": 1, "ratings_sum": 5}
        await session.execute(update(Book).where(Book.id == book_id).values(rated))

    answer = await client.get("/v1/rankings/books", headers={"Cache-Control": "No-Cache"})
    again = await client.get(
        "/v1/rankings/books",
        headers={"Cache-Control": "no-cache", "If-None-Match": answer.headers["ETag"]},
    )

    assert len(answer.json()["items"]) == 1
    assert again.status_code == 304


async def test_rankings_may_be_kept_by_browsers_and_share_one_calculation(
    client: httpx2.AsyncClient, resources: Resources
):
    first = await client.get("/v1/rankings/books?limit=3")
    with recorded(resources["sessions"]) as queries:
        await client.get("/v1/rankings/books?limit=4")

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
        answers = [await client.get("/told") for _ in range(2)]

    assert [answer.headers["X-Own"] for answer in answers] == ["kept", "kept"]
    assert [answer.headers["X-Empty"] for answer in answers] == ["", ""]
    assert answers[0].content == answers[1].content


@pytest.mark.parametrize(
    "own", [{"Set-Cookie": "session=secret"}, {"Cache-Control": "private, max-age=5"}]
)
async def test_answer_for_one_client_is_not_stored(
    application: FastAPI, resources: Resources, own: dict[str, str]
):
    application.state.headers = own
    async with client_of(application, resources) as client:
        answers = [await client.get("/told") for _ in range(2)]
        bypassing = await client.get("/told", headers={"Cache-Control": "no-cache"})

    assert [answer.json()["calls"] for answer in answers] == [1, 2]

    if "Cache-Control" not in own:
        assert answers[0].headers["Cache-Control"] == "private, no-store"
    for name, value in own.items():
        assert answers[0].headers.get_list(name) == [value]
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
        answer = await client.get("/told")

    assert [each.status_code for each in refused] == [503, 503]
    assert (answer.status_code, answer.headers["X-Cache"]) == (200, "MISS")


async def test_other_statuses_are_not_stored(application: FastAPI, resources: Resources):
    application.state.status = 409
    async with client_of(application, resources) as client:
        answers = await asyncio.gather(*(client.get("/told") for _ in range(3)))

    assert [answer.status_code for answer in answers] == [409, 409, 409]
    for answer in answers:  # each his own, also who has waited for another's
        assert answer.json()["request_id"] == answer.headers["X-Request-ID"]


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
