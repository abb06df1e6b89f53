import asyncio
from itertools import pairwise
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import RowMapping, text

from app.services.book_pages import SORTS
from chassis.resources import Resources
from tests.app.catalogue import Catalogue
from tests.app.rows import add_books
from tests.databases import mariadb_only
from tests.queries import max_queries, recorded

FILTERS = [
    {},
    {"language": "fre"},
    {"year_from": 1850},
    {"year_to": 1850},
    {"year_from": 1850, "year_to": 1900},
    {"language": "eng", "year_from": 1850},
]


@pytest.fixture
async def books(resources: Resources) -> None:
    async with resources["sessions"].write() as session:
        await add_books(session, 500)


def in_order(sort: str, items: list[dict[str, Any]]) -> bool:
    column = sort.removeprefix("-")
    places = [(item[column], item["id"]) for item in items]
    return all(a > b if sort.startswith("-") else a < b for a, b in pairwise(places))


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("filters", FILTERS, ids=str)
async def test_walk_sees_each_matching_book_once_and_in_order(
    books: None, catalogue: Catalogue, sort: str, filters: dict[str, Any]
):
    everything = await catalogue.walk("/v1/books", limit=100)
    expected = {
        book["id"]
        for book in everything
        if filters.get("language", book["language"]) == book["language"]
        and (not {"year_from", "year_to"} & filters.keys() or book["published_year"] is not None)
        and filters.get("year_from", -9999) <= (book["published_year"] or 0)
        and (book["published_year"] or 0) <= filters.get("year_to", 9999)
    }

    walked = await catalogue.walk("/v1/books", sort=sort, limit=37, **filters)

    assert len(everything) == 500
    assert in_order(sort, walked)
    assert {book["id"] for book in walked} == expected
    assert 0 < len(walked) <= 500


@pytest.mark.parametrize("sort", SORTS)
async def test_walk_is_exact_while_others_insert_and_delete(
    books: None, client: httpx.AsyncClient, catalogue: Catalogue, sort: str
):
    author_id = await catalogue.add_author()
    lasting = {book["id"] for book in await catalogue.walk("/v1/books", limit=100)}
    walking = True

    async def disturb() -> None:
        while walking:
            book = await catalogue.add_book("Title 00050", author_ids=[author_id])
            await client.delete(f"/v1/books/{book['id']}", headers=catalogue.editor)

    disturbing = asyncio.create_task(disturb())
    walked = [book["id"] for book in await catalogue.walk("/v1/books", sort=sort, limit=10)]
    walking = False
    await disturbing

    assert len(walked) == len(set(walked))
    assert lasting <= set(walked)


async def test_cursor_leads_on_when_its_book_is_deleted(
    client: httpx.AsyncClient, catalogue: Catalogue
):
    books = [await catalogue.add_book(f"Book {n}") for n in range(3)]
    first = (await client.get("/v1/books", params={"limit": 1, "sort": "title"})).json()

    await client.delete(f"/v1/books/{books[0]['id']}", headers=catalogue.editor)
    second = await client.get(
        "/v1/books", params={"limit": 1, "sort": "title", "after": first["next"]}
    )

    assert second.json()["items"] == [books[1]]


async def test_books_of_an_author(books: None, catalogue: Catalogue):
    everything = await catalogue.walk("/v1/books", limit=100)
    author_id = everything[0]["authors"][0]["id"]

    walked = await catalogue.walk("/v1/books", author_id=author_id, sort="title", limit=20)

    assert {book["id"] for book in walked} == {
        book["id"]
        for book in everything
        if author_id in [author["id"] for author in book["authors"]]
    }
    assert any(len(book["authors"]) > 1 for book in walked)


async def test_page_of_100_with_authors_takes_at_most_2_queries(
    books: None, client: httpx.AsyncClient, resources: Resources
):
    with max_queries(resources["sessions"], 2):
        page = await client.get("/v1/books", params={"limit": 100})
    with max_queries(resources["sessions"], 2):
        await client.get(f"/v1/books/{page.json()['items'][0]['id']}")
    with max_queries(resources["sessions"], 2):
        await client.get("/v1/rankings/books", params={"limit": 100})

    assert len(page.json()["items"]) == 100
    assert sum(len(book["authors"]) for book in page.json()["items"]) > 100


@pytest.mark.parametrize("path", ["/v1/books", "/v1/authors"])
@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "W10",
        "bnVsbA",
        "WyJpZCJd",
        "WyJpZCIsWzFdXQ",
        "WyJpZCIsMS41XQ",
        "WyJpZCIsMSwxXQ",
        "WyJpZCIsOTIyMzM3MjAzNjg1NDc3NTgwOF0",
    ],
)
async def test_what_is_no_cursor_is_refused(client: httpx.AsyncClient, path: str, cursor: str):
    response = await client.get(path, params={"after": cursor})

    assert response.status_code == 422
    assert response.json()["errors"][0]["loc"] == ["query", "after"]


async def test_cursor_of_another_sort_is_refused(books: None, client: httpx.AsyncClient):
    cursor = (await client.get("/v1/books", params={"sort": "title"})).json()["next"]

    response = await client.get("/v1/books", params={"sort": "id", "after": cursor})

    assert response.status_code == 422
    assert "belongs to sort=title" in response.json()["detail"]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=many", "sort=-id", "author_id=0", "q=", "q=%21%3F"]
)
async def test_invalid_query_is_refused(client: httpx.AsyncClient, query: str):
    response = await client.get(f"/v1/books?{query}")

    assert response.status_code == 422
    assert response.json()["errors"][0]["loc"] == ["query", query.split("=")[0]]


async def test_authors_are_listed_by_id_and_by_name(catalogue: Catalogue):
    names = ["Émile Zola", "Zadie Smith", "adam", "Ångström", "Adam"]
    ids = [await catalogue.add_author(name) for name in names]

    by_id = await catalogue.walk("/v1/authors", limit=2)
    by_name = await catalogue.walk("/v1/authors", limit=2, sort="name")

    assert [author["id"] for author in by_id] == ids
    assert [author["name"] for author in by_name] == sorted(names)


@mariadb_only
async def test_lists_are_found_by_an_index(client: httpx.AsyncClient, resources: Resources):
    """ANALYZE is EXPLAIN with what was really read: never a whole table, nor a whole index."""
    sessions = resources["sessions"]
    async with sessions.write() as session:
        await add_books(session, 6000, authors=6000)
        await session.execute(text("ANALYZE TABLE books, authors, book_authors"))
    author_id = (await client.get("/v1/authors")).json()["items"][0]["id"]
    filters = ["", "language=fre", "q=title", "year_from=1850&year_to=1851"]
    filters.append(f"author_id={author_id}")
    paths = [f"/v1/books?sort={sort}&{filter}" for sort in SORTS for filter in filters]
    paths += ["/v1/authors?sort=id", "/v1/authors?sort=name"]

    scans = []
    for path in paths:
        with recorded(sessions) as queries:
            page = await client.get(path)
            if cursor := page.json()["next"]:
                await client.get(f"{path}&after={cursor}")
        assert queries
        async with sessions.read() as session:
            connection = await session.connection()
            for query in queries:
                plan = await connection.exec_driver_sql(
                    f"ANALYZE {query.statement}", query.parameters
                )
                scans += [(path, step) for step in plan.mappings() if is_scan(step)]

    assert scans == []


def is_scan(step: RowMapping) -> bool:
    if step["table"] is None or step["table"].startswith("<derived"):
        return False  # the largest id, which takes no row; the page itself, of 21 rows
    return step["type"] == "ALL" or float(step["r_rows"] or 0) > 1000
