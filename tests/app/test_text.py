"""The texts of the catalogue: which there may be, how long, and in queries."""

import httpx2 as httpx
import pytest

from chassis.resources import Resources
from tests.app.catalogue import Catalogue
from tests.chassis.text.test_text import counts_the_normal_form, takes_text


async def test_every_field_of_the_catalogue_takes_text_and_refuses_the_rest(
    catalogue: Catalogue, resources: Resources
):
    book = await catalogue.add_book("Something")
    path = f"/v1/books/{book['id']}"
    review = await catalogue.add(f"{path}/reviews", {"rating": 3, "text": "x"})
    fields = [
        (f"/v1/authors/{book['authors'][0]['id']}", "name"),
        (path, "title"),
        (f"{path}/reviews/{review['id']}", "text"),
    ]
    await takes_text(catalogue, fields, lines="text")


@pytest.mark.parametrize(("path", "limit"), [("authors", 300), ("books", 500)])
async def test_limits_count_the_normal_form(catalogue: Catalogue, path: str, limit: int):
    book = await catalogue.add_book("Something")
    url, field = {
        "authors": (f"/v1/authors/{book['authors'][0]['id']}", "name"),
        "books": (f"/v1/books/{book['id']}", "title"),
    }[path]
    await counts_the_normal_form(catalogue, url, field, limit)


@pytest.mark.parametrize("q", ["%00", "a%00b", "%ED%A0%80%00", "%E2%80%AE", "a%0Ab", "x" * 201])
async def test_query_is_text_as_well(client: httpx.AsyncClient, q: str):
    response = await client.get(f"/v1/books?q={q}")

    assert response.status_code == 422
    assert response.json()["errors"][0]["loc"] == ["query", "q"]


@pytest.mark.parametrize("query", ["language=%00", "language=%ED%A0%80", "language=en%0A"])
async def test_language_is_a_code(client: httpx.AsyncClient, query: str):
    assert (await client.get(f"/v1/books?{query}")).status_code == 422
    assert (await client.get(f"/v1/rankings/books?{query}")).status_code == 422
