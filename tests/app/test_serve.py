"""What `make run` brings of the sample: a catalogue, and sellers to ask for offers."""

from pathlib import Path

import pytest

from tests.chassis.development.test_serve import copy_checkout, served


@pytest.mark.drill
async def test_first_run_brings_books_and_sellers_and_the_second_leaves_them(tmp_path: Path):
    checkout = copy_checkout(tmp_path / "checkout")
    async with served(checkout) as service, service.client() as client:
        page = (await client.get("/v1/books", params={"limit": 100})).json()
        offers = (await client.get("/v1/books/7/offers")).json()
    first = service.output.read_text()
    async with served(checkout) as service, service.client() as client:
        again = (await client.get("/v1/books", params={"limit": 100})).json()

    assert (len(page["items"]), page["next"] is None) == (100, False)
    assert "200 books of classics.csv" in first
    assert "Sellers    http://127.0.0.1:" in first
    assert len(offers["offers"]) == 3
    assert again == page
    assert "Catalogue" not in service.output.read_text()
