"""Routes of this service's kind that differ in one size, for benchmarks/growth.

ROUTES is the number of those with a parameter, tried in their order. Others have responses of any
number of books, with and without the cache, or cached responses with 1 to MAX_TAGS tags.
"""

import os
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, FastAPI

from app.schemas.book import BookRead
from app.settings import read_service_settings
from chassis.http.application import Application, include
from chassis.http.cached_responses import cached
from chassis.http.dependencies import Id
from chassis.http.routing import Route
from chassis.resources import open_resources

TAGS = (1, 2, 5, 10, 20, 50, 100)
TTL = 3600  # s
NOW = datetime(2026, 1, 1, tzinfo=UTC)
BOOK = BookRead(
    id=7,
    title="Frankenstein",
    isbn13="9780141439471",
    published_year=1818,
    language="eng",
    authors=[{"id": 12, "name": "Mary Shelley"}],
    ratings_count=1204,
    average_rating=4.12,
    version=1,
    created_at=NOW,
    updated_at=NOW,
)


def create_app() -> FastAPI:
    settings = read_service_settings()
    app = Application(settings, lifespan=lambda app: open_resources(settings), openapi_url=None)
    router = APIRouter(route_class=Route)
    for number in range(int(os.environ["ROUTES"])):
        router.add_api_route(f"/v1/things{number}/{{id}}", get_book, name=f"get_thing{number}")
    router.add_api_route("/v1/sized/{count}", get_books)
    router.add_api_route("/v1/stored/{count}", cached(ttl=TTL)(tagged()))
    for count in TAGS:
        tags = [f"tag:{number}" for number in range(count)]
        handler = cached(ttl=TTL, tags=tags)(tagged())
        router.add_api_route(f"/v1/tagged{count}/{{count}}", handler, name=f"get_tagged{count}")
    include(app, router)
    return app


async def get_book(id: Id) -> BookRead:
    return BOOK


async def get_books(count: Id) -> list[BookRead]:
    return [BOOK] * count


def tagged() -> Callable[[int], Coroutine[Any, Any, list[BookRead]]]:
    """The same as a handler of its own, which a cache policy marks."""

    async def get_same(count: Id) -> list[BookRead]:
        return [BOOK] * count

    return get_same
