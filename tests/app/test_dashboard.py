"""What an account sees at once, as far as it can be had."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import text, update

from app.models import Book
from app.sample.settings import OffersSettings
from app.schemas.user import Role
from app.settings import Settings
from chassis.resources import Resources
from tests.accounts import add_account
from tests.app.catalogue import Catalogue
from tests.app.sellers import Sellers

PATH = "/v1/users/me/dashboard"
ISBNS = ("9780141439471", "9780486282114", "9780199537150", "9780345803924")


@pytest.fixture
def settings(settings: Settings, sellers: Sellers) -> Settings:
    settings.offers = OffersSettings(sellers=sellers.setting, deadline=1)
    return settings


@pytest.fixture
async def reader(resources: Resources) -> dict[str, str]:
    async with resources["sessions"].write() as session:
        token = await add_account(session, Role.READER, resources["access_tokens"])
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
async def books(catalogue: Catalogue, resources: Resources) -> list[dict[str, Any]]:
    """The best first."""
    books = [await catalogue.add_book(f"Book {isbn}", isbn13=isbn) for isbn in ISBNS]
    async with resources["sessions"].write.begin() as session:
        for place, book in enumerate(books):
            figures = {"ratings_count": 10, "ratings_sum": 50 - 5 * place}
            await session.execute(update(Book).where(Book.id == book["id"]).values(figures))
    return books


async def test_dashboard_has_all_parts(
    client: httpx.AsyncClient, books: list[dict[str, Any]], reader: dict[str, str]
):
    path = f"/v1/books/{books[0]['id']}/reviews"
    review = await client.post(path, json={"rating": 5, "text": "Good."}, headers=reader)
    response = await client.get(PATH, headers=reader)

    shown = response.json()
    me = await client.get("/v1/users/me", headers=reader)
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "private, no-store"
    assert shown["profile"] == me.json()
    assert shown["latest_reviews"] == [review.json()]
    recommended = [found["book"]["id"] for found in shown["recommendations"]]
    assert recommended == [book["id"] for book in books[1:]]  # and not what it has read
    assert [len(found["offers"]["offers"]) for found in shown["recommendations"]] == [3, 3, 3]
    assert shown["unavailable"] == []


async def test_seller_that_hangs_is_missed_and_nothing_else(
    client: httpx.AsyncClient,
    books: list[dict[str, Any]],
    reader: dict[str, str],
    sellers: Sellers,
):
    sellers.behave("beta", latency=60)
    shown = (await client.get(PATH, headers=reader)).json()

    offers = [found["offers"] for found in shown["recommendations"]]
    assert [found["unavailable"] for found in offers] == [["beta"]] * 3
    assert [len(found["offers"]) for found in offers] == [2, 2, 2]
    assert shown["unavailable"] == []


async def test_part_that_fails_is_null_and_named(
    client: httpx.AsyncClient,
    books: list[dict[str, Any]],
    reader: dict[str, str],
    resources: Resources,
):
    """One query finds its table gone."""
    async with renamed(resources, "book_authors", "gone"):
        shown = (await client.get(PATH, headers=reader)).json()

    assert shown["recommendations"] is None
    assert shown["latest_reviews"] == []
    assert shown["unavailable"] == ["recommendations"]


@asynccontextmanager
async def renamed(resources: Resources, old: str, new: str) -> AsyncIterator[None]:
    async def rename(old: str, new: str) -> None:
        async with resources["sessions"].write.begin() as session:
            await session.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))

    await rename(old, new)
    try:
        yield
    finally:
        await rename(new, old)


async def test_dashboard_needs_an_account(client: httpx.AsyncClient):
    assert (await client.get(PATH)).status_code == 401
