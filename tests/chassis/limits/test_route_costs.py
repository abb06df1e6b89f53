"""Tokens that a request takes, by its route and by what it asks for."""

import httpx2 as httpx
import pytest
from fastapi import APIRouter

from app.settings import Settings
from chassis.http.application import include
from chassis.http.routing import Route
from chassis.limits.route_limits import limited
from chassis.limits.settings import LimitsSettings
from chassis.resources import Resources
from chassis.server.settings import WebSettings
from tests.conftest import client_of
from tests.databases import sqlite_only
from tests.service import create_app
from tests.shop import Shop

# What counts is Redis; one database is enough.

BURST = 5
SLOW = 1 / 3600  # one an hour: nothing comes back while a test runs


@pytest.fixture
def settings(settings: Settings) -> Settings:
    settings.limits = LimitsSettings(reads_rate=SLOW, reads_burst=BURST)
    return settings


async def statuses(client: httpx.AsyncClient, count: int, **headers: str) -> list[int]:
    responses = [await client.get("/v1/purchases/1", headers=headers) for _ in range(count)]
    return [response.status_code for response in responses]


@sqlite_only
async def test_going_past_the_cache_costs_as_much_as_five_answers(
    client: httpx.AsyncClient, shop: Shop
):
    """Without an account; one that is logged in is answered past it anyway."""
    past = {"Cache-Control": "no-cache"}
    editors = await statuses(client, BURST, **shop.editor, **past)
    hit = await client.get("/v1/purchases/1")
    refused = await client.get("/v1/purchases/1", headers=past | {"Authorization": "Bearer junk"})

    assert editors == [404] * BURST
    assert hit.headers["RateLimit"].startswith('"reads";r=4;')
    assert refused.status_code == 429


@sqlite_only
@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/docs/assets/swagger-ui.css"])
async def test_documentation_counts_as_reads(client: httpx.AsyncClient, path: str):
    responses = [await client.get(path) for _ in range(BURST + 1)]

    assert [response.status_code < 400 for response in responses] == [True] * BURST + [False]
    assert responses[-1].status_code == 429
    assert await statuses(client, 1) == [429]


@sqlite_only
@pytest.mark.parametrize(("asked", "left"), [(0, 4), (1, 4), (3, 2)])
async def test_a_route_may_cost_what_it_asks_for(
    settings: Settings, resources: Resources, asked: int, left: int
):
    """One request at least; known when a request comes, as it depends on the settings."""
    app = create_app(settings)
    router = APIRouter(route_class=Route)

    @router.get("/asking")
    @limited("reads", cost=lambda settings: settings.database.max_overflow)
    async def ask() -> None: ...

    include(app, router)
    settings.database.max_overflow = asked
    async with client_of(app, resources) as client:
        response = await client.get("/asking")

    assert response.status_code == 200
    assert response.headers["RateLimit"].startswith(f'"reads";r={left};')


@sqlite_only
async def test_documentation_can_be_switched_off(settings: Settings, resources: Resources):
    settings.web = WebSettings(docs=False)
    paths = ["/docs", "/docs/assets/swagger-ui.css", "/openapi.json"]

    async with client_of(create_app(settings), resources) as client:
        responses = [(await client.get(path)).status_code for path in [*paths, "/v1/purchases"]]

    assert responses == [404] * len(paths) + [200]
