from typing import Annotated

import httpx2
import pytest
from fastapi import APIRouter, Depends, FastAPI
from starlette.responses import PlainTextResponse

from app.routing import ProbeRoute, include


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


async def post(app: FastAPI, path: str, root_path: str = "") -> httpx2.Response:
    transport = httpx2.ASGITransport(app, root_path=root_path)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.post(path)


async def test_included_route_answers_as_its_router_says():
    answer = await post(application(), "/things/7")

    assert (answer.status_code, answer.text) == (202, "real 7")
    assert answer.headers["Content-Type"].startswith("text/plain")


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


def test_what_is_no_route_of_fastapi_is_refused_rather_than_lost():
    router = APIRouter()
    router.mount("/files", FastAPI())

    with pytest.raises(TypeError, match="no route of FastAPI"):
        include(FastAPI(), router)
