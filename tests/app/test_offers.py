"""Offers of several sellers, some of which are slow, broken or away."""

from typing import Any

import httpx2 as httpx
import pytest

from app.sample.settings import OffersSettings
from app.settings import Settings
from chassis.upstream.settings import HttpSettings
from tests.app.catalogue import Catalogue
from tests.app.sellers import Sellers

DEADLINE = 3  # s


@pytest.fixture
def settings(settings: Settings, sellers: Sellers) -> Settings:
    settings.offers = OffersSettings(sellers=sellers.setting, deadline=DEADLINE)
    settings.http = HttpSettings(breaker_failures=3, breaker_open_for=60, backoff=0.01)
    return settings


@pytest.fixture
async def path(catalogue: Catalogue) -> str:
    book = await catalogue.add_book(isbn13="9780141439471")
    return f"/v1/books/{book['id']}/offers"


async def get(client: httpx.AsyncClient, path: str) -> dict[str, Any]:
    response = await client.get(path)
    assert response.status_code == 200, response.text
    offers: dict[str, Any] = response.json()
    return offers


async def test_offers_of_all_sellers_the_cheapest_first(client: httpx.AsyncClient, path: str):
    response = await client.get(path)

    found = response.json()
    prices = [float(offer["price"]) for offer in found["offers"]]
    assert {offer["seller"] for offer in found["offers"]} == {"alpha", "beta", "gamma"}
    assert prices == sorted(prices)
    assert 'desc="upstream x3"' in response.headers["Server-Timing"]
    assert found["unavailable"] == []


async def test_book_that_is_not_there_or_has_no_isbn(
    client: httpx.AsyncClient, catalogue: Catalogue, sellers: Sellers, settings: Settings
):
    settings.offers.sellers = sellers.setting.replace("{book_id}", "{isbn13}")
    book = await catalogue.add_book()

    assert (await client.get("/v1/books/1000000/offers")).status_code == 404
    assert await get(client, f"/v1/books/{book['id']}/offers") == {
        "book_id": book["id"],
        "offers": [],
        "unavailable": [],
    }
    assert sellers.requests("alpha") == 0


async def test_sellers_are_asked_at_once(client: httpx.AsyncClient, path: str, sellers: Sellers):
    sellers.behave(latency=0.3)
    found = await get(client, path)

    assert len(found["offers"]) == 3
    assert sellers.at_once() == 3


async def test_seller_that_hangs_is_left_out(
    client: httpx.AsyncClient, path: str, sellers: Sellers
):
    sellers.behave("beta", latency=60)
    found = await get(client, path)

    assert {offer["seller"] for offer in found["offers"]} == {"alpha", "gamma"}
    assert found["unavailable"] == ["beta"]


@pytest.mark.parametrize(
    "behaviour", [{"errors": 1}, {"garbage": True}, {"size": 2_000_000}], ids=str
)
async def test_seller_that_talks_nonsense_is_left_out(
    client: httpx.AsyncClient, path: str, sellers: Sellers, behaviour: dict[str, Any]
):
    sellers.behave("gamma", **behaviour)
    found = await get(client, path)

    assert len(found["offers"]) == 2
    assert found["unavailable"] == ["gamma"]


async def test_offers_are_kept_for_a_while_and_failures_are_not(
    client: httpx.AsyncClient, path: str, sellers: Sellers
):
    sellers.behave("gamma", garbage=True)
    await get(client, path)
    sellers.behave("gamma")
    again = await get(client, path)

    assert len(again["offers"]) == 3
    assert (sellers.requests("alpha"), sellers.requests("gamma")) == (1, 1)


async def test_error_is_tried_again(client: httpx.AsyncClient, path: str, sellers: Sellers):
    sellers.behave("gamma", errors=1)
    await get(client, path)

    assert sellers.requests("gamma") == 3


async def test_retry_is_not_before_the_seller_wants_it(
    client: httpx.AsyncClient, path: str, sellers: Sellers
):
    sellers.behave("gamma", errors=1, retry_after=30)
    found = await get(client, path)

    assert found["unavailable"] == ["gamma"]
    assert sellers.requests("gamma") == 1


async def test_seller_that_hangs_is_not_waited_for_any_more(
    client: httpx.AsyncClient, path: str, sellers: Sellers, settings: Settings
):
    settings.offers.deadline = 0.3
    sellers.behave("beta", latency=60)
    for _ in range(5):
        found = await get(client, path)

    assert "beta" in found["unavailable"]
    assert sellers.requests("beta") <= 3  # so often it may fail


async def test_seller_that_is_down_is_not_asked_any_more(
    client: httpx.AsyncClient, catalogue: Catalogue, sellers: Sellers
):
    sellers.behave("gamma", errors=1)
    books = [await catalogue.add_book(isbn13=isbn) for isbn in ("9780141439471", "9780486282114")]
    for book in books:
        found = await get(client, f"/v1/books/{book['id']}/offers")
        assert found["unavailable"] == ["gamma"]

    assert sellers.requests("gamma") == 3  # so often it may fail
