"""Routes found by the start of their path, and called without FastAPI's layers: all works alike."""

import re
from collections.abc import AsyncIterator, Iterator
from random import Random
from typing import Annotated

import httpx2 as httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Request, UploadFile
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.routing import BaseRoute, Match

from app.settings import Settings
from chassis.http.application import RouteIndex, include
from chassis.http.routing import ProbeRoute
from chassis.resources import Resources
from tests.conftest import Servers, client_of
from tests.databases import sqlite_only
from tests.service import create_app

events: list[str] = []
router = APIRouter(prefix="/v1/probes", route_class=ProbeRoute)
plain = APIRouter(prefix="/v1/plain")


class Refused(Exception):
    pass


class Gone(Exception):
    pass


class Unexpected(Exception):
    pass


async def opened() -> AsyncIterator[str]:
    events.append("opened")
    yield "part"
    events.append("closed")


Opened = Annotated[str, Depends(opened)]


def stream(part: str) -> Iterator[str]:
    for _ in range(3):
        events.append(part)
        yield part


@router.get("/stream")
async def get_stream(part: Opened) -> StreamingResponse:
    return StreamingResponse(stream(part))


@router.post("/form")
async def post_form(file: UploadFile, tasks: BackgroundTasks) -> int:
    async def read_later() -> None:
        events.append((await file.read()).decode())

    tasks.add_task(read_later)
    return file.size or 0


@router.get("/refused")
@plain.get("/refused")
async def get_refused() -> None:
    raise Refused("by its own error")


@router.get("/gone")
@plain.get("/gone")
async def get_gone() -> None:
    raise Gone("by its own error")


@router.get("/unexpected")
@plain.get("/unexpected")
async def get_unexpected() -> None:
    raise Unexpected("what nobody expected")


@plain.get("/{name}")
async def get_plain(name: str) -> str:
    return f"plain {name}"


@router.get("/{name}")
async def get_by_name(name: str) -> str:
    return f"by name {name}"


@router.get("/after")
async def get_after() -> str:
    return "hidden by the route before"


@pytest.fixture(scope="module")
def app(servers: Servers) -> FastAPI:
    url = f"sqlite+aiosqlite:///{servers.folder}/unused.db"
    settings = Settings(_env_file=None, database={"url": url}, redis={"url": "redis://127.0.0.1"})
    app = create_app(settings)
    include(app, router)
    app.include_router(plain)

    @app.exception_handler(Refused)
    async def on_refused(request: Request, error: Refused) -> PlainTextResponse:
        return PlainTextResponse(str(error), 409)

    @app.exception_handler(Gone)
    def on_gone(request: Request, error: Gone) -> PlainTextResponse:
        return PlainTextResponse(str(error), 410)

    @app.exception_handler(Exception)
    async def on_any(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse("hidden")

    @app.get("/{word}")
    async def get_word(word: str) -> str:
        return word

    return app


@pytest.fixture
async def client(app: FastAPI, resources: Resources) -> AsyncIterator[httpx.AsyncClient]:
    events.clear()
    async with client_of(app, resources) as client:
        yield client


def paths_of(app: FastAPI) -> set[str]:
    """Of each route some that match it, and some that nearly do."""
    random, found = Random(1), {"/", "", "//", "/v1", "/v1/", "/nothing", "/nothing/at/all"}
    for route in app.routes:
        template = re.sub(
            r"\{[^}]+\}", lambda _: str(random.randrange(9)), getattr(route, "path", "")
        )
        found |= {template, f"{template}/", f"{template}/x", f"/{template}", template[:-1]}
        found |= {template.replace("/", "//", 1), template.upper(), template.rpartition("/")[0]}
    return found


def first_match(routes: list[BaseRoute], method: str, path: str) -> BaseRoute | None:
    scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
    return next((each for each in routes if each.matches(scope)[0] is Match.FULL), None)


def test_each_path_has_the_route_that_trying_all_of_them_would_find(app: FastAPI):
    index = RouteIndex(app.routes)

    for path in paths_of(app):
        candidates = list(index.candidates(path))
        for method in ("GET", "HEAD", "POST", "PATCH", "DELETE"):
            expected = first_match(app.routes, method, path)
            if isinstance(expected, ProbeRoute):
                assert first_match(candidates, method, path) is expected, (method, path)
            else:  # Application leaves it to FastAPI, which tries all
                assert not isinstance(first_match(candidates, method, path), ProbeRoute)


def test_number_of_routes_tried_does_not_grow_with_that_of_resources(app: FastAPI):
    index = RouteIndex(app.routes)
    before = len(index.candidates("/v1/probes/7"))

    for number in range(100):
        other = APIRouter(prefix=f"/v1/others{number}", route_class=ProbeRoute)
        other.get("/{name}")(get_by_name)
        include(app, other)

    assert len(index.candidates("/v1/probes/7")) == before
    assert len(index.candidates("/v1/others7/7")) < 10


@sqlite_only
async def test_dependency_with_yield_is_closed_after_the_response(client: httpx.AsyncClient):
    response = await client.get("/v1/probes/stream")

    assert response.text == "partpartpart"
    assert events == ["opened", "part", "part", "part", "closed"]


@sqlite_only
async def test_uploaded_file_is_open_until_background_tasks_end(client: httpx.AsyncClient):
    response = await client.post("/v1/probes/form", files={"file": b"content"})

    assert response.json() == 7
    assert events == ["content"]


@sqlite_only
@pytest.mark.parametrize("name", ["probes", "plain"])
@pytest.mark.parametrize(("path", "status"), [("refused", 409), ("gone", 410)])
async def test_handlers_of_own_errors_are_asked(
    client: httpx.AsyncClient, name: str, path: str, status: int
):
    response = await client.get(f"/v1/{name}/{path}")

    assert (response.status_code, response.text) == (status, "by its own error")


@sqlite_only
@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/v1/probes/after", "by name after"),
        ("/v1/probes/x", "by name x"),
        ("/v1/plain/x", "plain x"),
        ("/word", "word"),
        ("/health", "ok"),
    ],
)
async def test_first_route_that_matches_responds(client: httpx.AsyncClient, path: str, text: str):
    response = await client.get(path)

    assert response.status_code == 200
    assert text in response.text


@sqlite_only
@pytest.mark.parametrize("name", ["probes", "plain"])
async def test_error_that_nobody_expected_is_logged_whoever_handles_all(
    client: httpx.AsyncClient, name: str, caplog: pytest.LogCaptureFixture
):
    response = await client.get(f"/v1/{name}/unexpected")

    assert response.status_code == 500
    assert response.headers["Content-Type"] == "application/problem+json"
    assert "what nobody expected" in caplog.text
