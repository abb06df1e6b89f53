"""What a deprecated route says, and that others say nothing."""

from collections.abc import AsyncIterator
from datetime import date
from typing import Annotated

import httpx2 as httpx
import pytest
from fastapi import APIRouter, FastAPI, Query

from app.settings import Settings
from chassis.deprecation import Deprecation, deprecated
from chassis.errors import NotFound
from chassis.http.application import include
from chassis.http.cached_responses import cached
from chassis.http.middleware import RequestMiddleware
from chassis.http.openapi import document_api, problems, sends
from chassis.http.routing import Route
from chassis.problems.handlers import add_error_handlers
from chassis.resources import Resources
from tests.conftest import client_of

EXPECTED = {
    "Deprecation": "@1767225600",
    "Sunset": "Wed, 01 Jul 2026 00:00:00 GMT",
    "Link": '</docs>; rel="deprecation sunset"; type="text/html"',
}
gone = deprecated(since=date(2026, 1, 1), sunset=date(2026, 7, 1), link="/docs")


def application(settings: Settings) -> FastAPI:
    app = FastAPI()
    router = APIRouter(prefix="/old", route_class=Route)

    @router.get("/{number}", responses=problems(404))
    @gone
    @cached(ttl=60)
    async def get_old(number: int) -> dict[str, int]:
        if number == 0:
            raise NotFound("There is none")
        return {"number": number}

    @router.post("/{number}", status_code=201, responses=problems() | sends(201, "Location"))
    @gone
    async def post_old(number: int, size: Annotated[int, Query()] = 1) -> dict[str, int]:
        if number == 0:
            raise RuntimeError("A bug")
        return {"number": number}

    @router.put("/{number}", responses=problems())
    async def put_new(number: int) -> dict[str, int]:
        return {"number": number}

    @router.delete("/{number}", responses=problems())
    @deprecated(since=date(2026, 1, 1))
    async def delete_some_day(number: int) -> dict[str, int]:
        return {"number": number}

    include(app, router)
    add_error_handlers(app)
    app.add_middleware(
        RequestMiddleware, request=settings.request, log=settings.log, metrics_port=None
    )
    document_api(app)
    return app


@pytest.fixture
async def client(settings: Settings, resources: Resources) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(application(settings), resources) as client:
        yield client


def announced(response: httpx.Response) -> dict[str, str]:
    return {name: response.headers[name] for name in EXPECTED if name in response.headers}


async def test_responses_announce_it_from_the_cache_and_without_a_body_too(
    client: httpx.AsyncClient,
):
    miss, hit = [await client.get("/old/7") for _ in range(2)]
    known = await client.get("/old/7", headers={"If-None-Match": miss.headers["ETag"]})
    head = await client.head("/old/7")
    bypass = await client.get("/old/7", headers={"Cache-Control": "no-cache"})

    assert [each.headers["X-Cache"] for each in (miss, hit, known)] == ["MISS", "HIT", "HIT"]
    assert known.status_code == 304
    for response in (miss, hit, known, head, bypass):
        assert announced(response) == EXPECTED
        assert len(response.headers.get_list("Deprecation")) == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/old/0", 404),
        ("GET", "/old/x", 422),
        ("GET", "/old/7?other=1", 422),
        ("POST", "/old/7?size=x", 422),
        ("POST", "/old/7", 201),
        ("POST", "/old/0", 500),
    ],
)
async def test_errors_announce_it_too(
    client: httpx.AsyncClient, method: str, path: str, status: int
):
    response = await client.request(method, path)

    assert response.status_code == status
    assert announced(response) == EXPECTED


async def test_other_routes_of_the_path_announce_nothing(client: httpx.AsyncClient):
    new = await client.put("/old/7")
    refused = await client.patch("/old/7")
    nowhere = await client.get("/old")

    assert [each.status_code for each in (new, refused, nowhere)] == [200, 405, 404]
    assert [announced(each) for each in (new, refused, nowhere)] == [{}, {}, {}]


async def test_without_a_date_of_removal_there_is_no_sunset(client: httpx.AsyncClient):
    assert announced(await client.delete("/old/7")) == {"Deprecation": "@1767225600"}


async def test_document_has_the_dates_and_the_headers(settings: Settings):
    operations = application(settings).openapi()["paths"]["/old/{number}"]

    assert [operations[name].get("deprecated") for name in ("get", "post", "put", "delete")] == [
        True,
        True,
        None,
        True,
    ]
    assert operations["get"]["x-sunset"] == operations["post"]["x-sunset"] == "2026-07-01"
    assert "x-sunset" not in operations["delete"]
    for name in ("get", "post"):
        for response in operations[name]["responses"].values():
            shown = {header: response["headers"][header]["example"] for header in EXPECTED}
            assert shown == EXPECTED
    assert operations["get"]["responses"]["304"]["headers"]["ETag"]["required"]
    assert operations["post"]["responses"]["201"]["headers"]["Location"]["required"]
    assert "headers" not in operations["put"]["responses"]["200"]


def test_routes_that_are_not_deprecated_are_left_as_they_are(settings: Settings):
    """They cost nothing more: the class's own method handles them."""
    routes = {each.name: each for each in application(settings).routes if isinstance(each, Route)}

    assert "handle" in vars(routes["get_old"])
    assert "handle" not in vars(routes["put_new"])


def test_sunset_before_the_deprecation_is_refused():
    with pytest.raises(ValueError, match="before the deprecation"):
        Deprecation(since=date(2026, 2, 1), sunset=date(2026, 1, 1))
