"""The setting that names sellers, and tokens that a request takes by how many it asks."""

import httpx2 as httpx
import pytest

from app.sample.settings import OffersSettings
from app.settings import Settings, read_settings
from chassis.limits.settings import LimitsSettings
from tests.app.catalogue import Catalogue
from tests.databases import sqlite_only

# What counts is Redis; one database is enough.

BURST = 5
SLOW = 1 / 3600  # one an hour: nothing comes back while a test runs
THREE = ",".join(f"{name}=http://{name}/{{isbn13}}" for name in "abc")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    settings.limits = LimitsSettings(reads_rate=SLOW, reads_burst=BURST)
    return settings


@pytest.mark.parametrize(
    "value",
    [
        "https://seller.example/{isbn13}",
        "one=ftp://seller.example",
        "one=https://seller.example:99999/",
        "one=https://seller.example/{isbn}",
        "one=https://a.example,one=https://b.example",
    ],
)
def test_odd_addresses_of_sellers_are_refused(monkeypatch: pytest.MonkeyPatch, value: str):
    urls = {"DATABASE_URL": "sqlite+aiosqlite:///shop.db", "REDIS_URL": "redis://127.0.0.1"}
    for name, text in {**urls, "OFFERS_SELLERS": value}.items():
        monkeypatch.setenv(name, text)

    with pytest.raises(SystemExit, match=r"(?m)^  OFFERS_SELLERS: (is not|has for)"):
        read_settings()


@sqlite_only
async def test_ranking_costs_as_much_as_five_reads(client: httpx.AsyncClient):
    ranking = await client.get("/v1/rankings/books")

    assert ranking.headers["RateLimit"].startswith('"reads";r=0;')


@sqlite_only
@pytest.mark.parametrize(("sellers", "left"), [("", 4), ("a=http://a/{isbn13}", 4), ("three", 2)])
async def test_offers_cost_what_they_ask_for(
    settings: Settings, client: httpx.AsyncClient, sellers: str, left: int
):
    settings.offers = OffersSettings(sellers=THREE if sellers == "three" else sellers)

    response = await client.get("/v1/books/1/offers")

    assert response.status_code == 404
    assert response.headers["RateLimit"].startswith(f'"reads";r={left};')


@sqlite_only
async def test_dashboard_costs_the_offers_of_three_books(
    settings: Settings, client: httpx.AsyncClient, catalogue: Catalogue
):
    settings.offers = OffersSettings(sellers="a=http://a/{isbn13}")

    response = await client.get("/v1/users/me/dashboard", headers=catalogue.editor)

    assert response.status_code == 200
    assert response.headers["RateLimit"].startswith('"reads";r=2;')
