import re
from typing import Annotated

import httpx2 as httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Query
from fastapi._compat import get_cached_model_fields
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from app.settings import Settings
from chassis.http.application import include
from chassis.http.routing import ProbeRoute
from chassis.problems.handlers import add_error_handlers
from tests.service import create_app


async def read_name() -> str:
    return "real"


def application() -> FastAPI:
    """Everything of a route that is said in a router rather than at the route."""
    app = FastAPI()
    router = APIRouter(
        prefix="/things",
        tags=["things"],
        route_class=ProbeRoute,
        responses={404: {"description": "There is no such thing"}},
        default_response_class=PlainTextResponse,
    )

    @router.post("/{thing_id}", status_code=202, deprecated=True, summary="Make it")
    async def make_thing(thing_id: int, name: Annotated[str, Depends(read_name)]) -> str:
        return f"{name} {thing_id}"

    include(app, router)
    return app


async def post(app: FastAPI, path: str, root_path: str = "") -> httpx.Response:
    transport = httpx.ASGITransport(app, root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.post(path)


async def test_included_route_answers_as_its_router_says():
    response = await post(application(), "/things/7")

    assert (response.status_code, response.text) == (202, "real 7")
    assert response.headers["Content-Type"].startswith("text/plain")


async def test_included_route_is_documented_as_its_router_says():
    operation = application().openapi()["paths"]["/things/{thing_id}"]["post"]

    assert (operation["tags"], operation["summary"]) == (["things"], "Make it")
    assert operation["deprecated"] is True
    assert operation["responses"].keys() == {"202", "404", "422"}
    assert operation["operationId"] == "make_thing_things__thing_id__post"


async def test_dependencies_of_included_routes_can_be_overridden():
    app = application()
    app.dependency_overrides[read_name] = lambda: "other"

    assert (await post(app, "/things/7")).text == "other 7"


async def test_routes_are_found_behind_a_proxy_that_strips_or_keeps_a_prefix():
    stripped = await post(application(), "/things/7", root_path="/api")
    kept = await post(application(), "/api/things/7", root_path="/api")

    assert (stripped.status_code, kept.status_code) == (202, 202)


METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


async def test_refused_method_names_all_others_whatever_kind_of_route_has_them(
    client: httpx.AsyncClient, settings: Settings
):
    app = create_app(settings)
    paths = {re.sub("{.*?}", "1", route.path) for route in app.routes if isinstance(route, Route)}
    assert {"/", "/docs", "/openapi.json", "/v1/purchases", "/files/1"} <= paths

    for path in [*paths, "/docs/assets/swagger-ui.css"]:
        responses = {method: await client.request(method, path) for method in METHODS}
        refused = {
            name: response for name, response in responses.items() if response.status_code == 405
        }

        assert refused, path
        for response in refused.values():
            assert (
                set(response.headers["Allow"].split(", ")) == responses.keys() - refused.keys()
            ), path
        assert ("GET" in refused) == ("HEAD" in refused), path


async def test_method_that_a_handler_refuses_is_its_own_business():
    app = FastAPI()
    add_error_handlers(app)

    @app.put("/thing")
    async def put_thing() -> None:
        raise HTTPException(405, headers={"Allow": "GET"})

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {}}, receive, send)

    transport = httpx.ASGITransport(with_state)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.put("/thing")

    assert (response.status_code, response.headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize("path", ["/docs/assets/swagger-ui.css", "/openapi.json", "/docs"])
async def test_head_takes_no_range(client: httpx.AsyncClient, path: str):
    whole = await client.head(path)
    response = await client.head(path, headers={"Range": "bytes=0-9"})

    assert (response.status_code, response.content) == (200, b"")
    assert "Content-Range" not in response.headers
    assert response.headers["Content-Length"] == whole.headers["Content-Length"]


class Filter(BaseModel):
    word: str = ""


def test_document_shares_no_first_use_with_a_request():
    """It is built in a thread: FastAPI may have nothing left to make that both would make."""
    app = FastAPI()
    router = APIRouter(route_class=ProbeRoute)

    @router.get("/things")
    async def get_things(query: Annotated[Filter, Query()]) -> str:
        return query.word

    include(app, router)
    made = get_cached_model_fields.cache_info().misses
    app.openapi()

    assert get_cached_model_fields.cache_info().misses == made


def test_what_is_no_route_of_fastapi_is_refused_rather_than_lost():
    router = APIRouter()
    router.mount("/files", FastAPI())

    with pytest.raises(TypeError, match="not a route of FastAPI"):
        include(FastAPI(), router)
