import asyncio
from typing import Any

import httpx2 as httpx
import pytest

from chassis.resources import Resources
from tests.app.catalogue import Catalogue
from tests.jobs import work_off


async def add_author(
    client: httpx.AsyncClient, headers: dict[str, str], number: int = 0
) -> dict[str, Any]:
    """For tests of resources that refer to authors: `make resource` finds it by its name."""
    body = {"name": f"Author {number}"}
    response = await client.post("/v1/authors", json=body, headers=headers)
    assert response.status_code == 201, response.text
    author: dict[str, Any] = response.json()
    return author


async def test_created_author_is_at_its_location(client: httpx.AsyncClient, catalogue: Catalogue):
    created = await client.post(
        "/v1/authors", json={"name": " Mary Shelley "}, headers=catalogue.editor
    )
    read = await client.get(created.headers["Location"])

    assert created.status_code == 201
    assert read.json() == created.json()
    assert (read.json()["name"], read.json()["version"]) == ("Mary Shelley", 1)
    assert read.headers["ETag"] == created.headers["ETag"]


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("Zoë", "Zoe\u0308"),
        ("Zoe\u0308", "Zoë"),
        ("Jos\u00e9 X", "Jose\u0301\u00a0 X "),
        ("\uac00", "\u1100\u1161"),
        ("Ursula K. Le Guin", "Ursula  K. Le\u3000Guin"),
    ],
)
async def test_names_that_differ_only_in_form_are_one_name(
    client: httpx.AsyncClient, catalogue: Catalogue, name: str, same: str
):
    await catalogue.add_author(name)
    other_id = await catalogue.add_author("Other")

    again = await client.post("/v1/authors", json={"name": same}, headers=catalogue.editor)
    renamed = await catalogue.change(f"/v1/authors/{other_id}", name=same)

    assert (again.status_code, renamed.status_code) == (409, 409)
    assert again.json()["detail"].startswith("There is an author named ")


async def test_names_that_differ_in_case_or_marks_are_others(catalogue: Catalogue):
    for name in ("Zoe", "zoe", "Zoë", "Zoé", "\u0639\u0644\u06cc", "\u0639\u0644\u064a"):
        await catalogue.add_author(name)


async def test_renamed_author_keeps_his_books(client: httpx.AsyncClient, catalogue: Catalogue):
    author_id = await catalogue.add_author("Ellis Bell")
    book = await catalogue.add_book(author_ids=[author_id])

    renamed = await catalogue.change(f"/v1/authors/{author_id}", name="Emily Brontë")

    assert (renamed.status_code, renamed.json()["version"]) == (200, 2)
    read = (await client.get(f"/v1/books/{book['id']}")).json()
    assert read["authors"] == [{"id": author_id, "name": "Emily Brontë"}]


async def test_rename_to_a_taken_name_changes_nothing(
    client: httpx.AsyncClient, catalogue: Catalogue
):
    await catalogue.add_author("Taken")
    author_id = await catalogue.add_author("Free")

    response = await catalogue.change(f"/v1/authors/{author_id}", name="Taken")

    assert response.status_code == 409
    assert (await client.get(f"/v1/authors/{author_id}")).json()["name"] == "Free"


async def test_stale_if_match_is_refused(client: httpx.AsyncClient, catalogue: Catalogue):
    author_id = await catalogue.add_author()

    response = await client.patch(
        f"/v1/authors/{author_id}",
        json={"name": "Other"},
        headers=catalogue.editor | {"If-Match": '"2"'},
    )

    assert response.status_code == 412


async def test_author_with_books_cannot_be_deleted(client: httpx.AsyncClient, catalogue: Catalogue):
    author_id = await catalogue.add_author()
    book = await catalogue.add_book(author_ids=[author_id])
    path = f"/v1/authors/{author_id}"

    refused = await client.delete(path, headers=catalogue.editor)
    await client.delete(f"/v1/books/{book['id']}", headers=catalogue.editor)
    deleted = await client.delete(path, headers=catalogue.editor)

    assert (refused.status_code, deleted.status_code) == (409, 204)
    assert (await client.get(path)).status_code == 404


async def test_books_and_their_authors_are_edited_at_the_same_time(
    client: httpx.AsyncClient,
    catalogue: Catalogue,
    resources: Resources,
):
    """No deadlock, and the search index knows the last names, whichever came first."""
    authors = [await catalogue.add_author(f"First {n}") for n in range(2)]
    books = [await catalogue.add_book(f"Book {n}", author_ids=authors) for n in range(4)]

    responses = await asyncio.gather(
        *(
            catalogue.change(
                f"/v1/books/{book['id']}", title=f"Edition {n}", author_ids=authors[:: (-1) ** n]
            )
            for n in range(6)
            for book in books
        ),
        *(
            catalogue.change(f"/v1/authors/{author_id}", name=f"Name{n} of {author_id}")
            for n in range(6)
            for author_id in authors
        ),
    )
    await work_off(resources)
    stored = [(await client.get(f"/v1/books/{book['id']}")).json() for book in books]

    assert {response.status_code for response in responses} == {200}
    for book in stored:
        names = " ".join(author["name"] for author in book["authors"])
        found = (await client.get("/v1/books", params={"q": names})).json()["items"]
        assert book in found
    assert {book["version"] for book in stored} == {1 + 6}
