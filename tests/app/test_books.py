import asyncio

import httpx2 as httpx
import pytest

from tests.app.catalogue import Catalogue


async def test_created_book_is_at_its_location(client: httpx.AsyncClient, catalogue: Catalogue):
    author_id = await catalogue.add_author("Mary Shelley")
    book = {
        "title": "Frankenstein",
        "isbn13": "978-0-14-143947-1",
        "published_year": 1818,
        "language": "eng",
        "author_ids": [author_id],
    }

    created = await client.post("/v1/books", json=book, headers=catalogue.editor)
    read = await client.get(created.headers["Location"])

    assert created.status_code == 201
    assert read.json() == created.json()
    assert read.json() | {"created_at": "", "updated_at": ""} == {
        "id": created.json()["id"],
        "title": "Frankenstein",
        "isbn13": "9780141439471",
        "published_year": 1818,
        "language": "eng",
        "authors": [{"id": author_id, "name": "Mary Shelley"}],
        "ratings_count": 0,
        "average_rating": 0,
        "version": 1,
        "created_at": "",
        "updated_at": "",
    }
    assert read.json()["created_at"].endswith("Z")


async def test_authors_keep_the_order_of_the_title_page(catalogue: Catalogue):
    terry, neil = await catalogue.add_author("Terry"), await catalogue.add_author("Neil")

    book = await catalogue.add_book("Good Omens", author_ids=[neil, terry, neil])

    assert [author["name"] for author in book["authors"]] == ["Neil", "Terry"]


async def test_update_changes_only_what_is_sent(catalogue: Catalogue):
    book = await catalogue.add_book(language="eng", published_year=1818)

    changed = await catalogue.change(f"/v1/books/{book['id']}", published_year=None)

    assert changed.json() | {"updated_at": ""} == book | {
        "published_year": None,
        "version": 2,
        "updated_at": "",
    }
    assert changed.json()["updated_at"] > book["updated_at"]


async def test_update_replaces_the_authors(catalogue: Catalogue):
    first, second = await catalogue.add_author("First"), await catalogue.add_author("Second")
    book = await catalogue.add_book(author_ids=[first, second])

    changed = await catalogue.change(f"/v1/books/{book['id']}", author_ids=[second, first])

    assert [author["id"] for author in changed.json()["authors"]] == [second, first]


async def test_stale_if_match_is_refused_and_changes_nothing(
    client: httpx.AsyncClient, catalogue: Catalogue
):
    path = f"/v1/books/{(await catalogue.add_book())['id']}"
    etag = (await client.get(path)).headers["ETag"]
    await catalogue.change(path, title="Second")

    stale = await client.patch(
        path, json={"title": "Third"}, headers=catalogue.editor | {"If-Match": etag}
    )

    assert stale.status_code == 412
    assert (await client.get(path)).json()["title"] == "Second"


@pytest.mark.parametrize("if_match", ["*", "{etag}", '"other", {etag}', "W/{etag}"])
async def test_current_if_match_is_accepted(
    client: httpx.AsyncClient, catalogue: Catalogue, if_match: str
):
    path = f"/v1/books/{(await catalogue.add_book())['id']}"
    etag = (await client.get(path)).headers["ETag"]

    changed = await client.patch(
        path,
        json={"title": "Second"},
        headers=catalogue.editor | {"If-Match": if_match.format(etag=etag)},
    )

    assert changed.status_code == 200
    assert changed.headers["ETag"] == (await client.get(path)).headers["ETag"] != etag


async def test_of_concurrent_changes_to_one_version_a_single_one_wins(
    client: httpx.AsyncClient, catalogue: Catalogue
):
    path = f"/v1/books/{(await catalogue.add_book())['id']}"
    etag = (await client.get(path)).headers["ETag"]
    headers = catalogue.editor | {"If-Match": etag}
    # Connections that must first be opened would come one after the other.
    await asyncio.gather(*(catalogue.add_book(f"Warm {n}") for n in range(8)))

    responses = await asyncio.gather(
        *(client.patch(path, json={"title": f"Title {n}"}, headers=headers) for n in range(8))
    )

    assert sorted(response.status_code for response in responses) == [200] + 7 * [412]
    assert (await client.get(path)).json()["version"] == 2


async def test_deleted_book_is_gone(client: httpx.AsyncClient, catalogue: Catalogue):
    path = f"/v1/books/{(await catalogue.add_book())['id']}"

    deleted = await client.delete(path, headers=catalogue.editor)

    assert (deleted.status_code, deleted.content) == (204, b"")
    assert (await client.get(path)).status_code == 404
    assert (await client.delete(path, headers=catalogue.editor)).status_code == 404


@pytest.mark.parametrize(
    "isbn", ["978-0-441-17271-9", "978 0441172719", "0-441-17271-7", "0441172717", "0–441–17271–7"]
)
async def test_isbn_is_shown_as_13_digits(catalogue: Catalogue, isbn: str):
    assert (await catalogue.add_book(isbn13=isbn))["isbn13"] == "9780441172719"


async def test_isbn_belongs_to_one_book(client: httpx.AsyncClient, catalogue: Catalogue):
    book = await catalogue.add_book("First", isbn13="9780141439471")

    response = await client.post(
        "/v1/books",
        json={
            "title": "Second",
            "isbn13": "978-0141439471",
            "author_ids": [book["authors"][0]["id"]],
        },
        headers=catalogue.editor,
    )

    assert response.status_code == 409
    assert response.json()["detail"] == "Another book has this ISBN"


@pytest.mark.parametrize(
    ("fields", "loc"),
    [
        ({"title": ""}, ["body", "title"]),
        ({"title": None}, ["body", "title"]),
        ({"title": "two\nlines"}, ["body", "title"]),
        ({"title": "x" * 501}, ["body", "title"]),
        ({"isbn13": "9780141439472"}, ["body", "isbn13"]),
        ({"isbn13": "0141439472"}, ["body", "isbn13"]),
        ({"isbn13": "1234567890128"}, ["body", "isbn13"]),
        ({"isbn13": "441172717"}, ["body", "isbn13"]),
        ({"isbn13": "9780441172719" + " " * 20}, ["body", "isbn13"]),
        ({"isbn13": 9780441172719}, ["body", "isbn13"]),
        ({"published_year": "1818"}, ["body", "published_year"]),
        ({"published_year": False}, ["body", "published_year"]),
        ({"language": "english, mostly"}, ["body", "language"]),
        ({"author_ids": []}, ["body", "author_ids"]),
        ({"author_ids": [987654321]}, ["body", "author_ids"]),
        ({"pages": 280}, ["body", "pages"]),
        ({"average_rating": 5}, ["body", "average_rating"]),
    ],
)
async def test_invalid_field_is_named(
    catalogue: Catalogue, fields: dict[str, object], loc: list[str]
):
    path = f"/v1/books/{(await catalogue.add_book())['id']}"

    response = await catalogue.change(path, **fields)

    assert response.status_code == 422
    assert [error["loc"] for error in response.json()["errors"]] == [loc]


@pytest.mark.parametrize(
    "authorization", [None, "", "Basic eDp5", "Bearer", "Bearer wrong", "Bearer schlüssel"]
)
async def test_writing_needs_a_token(
    client: httpx.AsyncClient, catalogue: Catalogue, authorization: str | None
):
    book = await catalogue.add_book()
    headers = [(b"Authorization", authorization.encode())] if authorization is not None else []

    for method, path in (
        ("POST", "/v1/books"),
        ("PATCH", f"/v1/books/{book['id']}"),
        ("DELETE", f"/v1/books/{book['id']}"),
        ("POST", "/v1/authors"),
        ("PATCH", f"/v1/authors/{book['authors'][0]['id']}"),
        ("DELETE", f"/v1/authors/{book['authors'][0]['id']}"),
    ):
        response = await client.request(method, path, headers=headers)

        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
