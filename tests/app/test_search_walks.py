"""Searches that walk along the index of the sort find what the full-text index finds."""

from itertools import product
from random import Random
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import insert, text

from app.models import Author, Book, BookAuthor
from app.models.full_text import search_words
from app.services import book_search
from app.services.book_pages import SORTS
from app.services.book_search import FIRST_WALK
from chassis.resources import Resources
from chassis.text.search_words import phrases
from tests.app.catalogue import Catalogue
from tests.app.searches import index_only, walks
from tests.databases import mariadb_only, sqlite_only
from tests.queries import Query, recorded

COUNT = 500
LONG = "one two three four five six seven eight nine"  # more phrases than are compared
# What is in each title, and in how many: of each so many books, one.
EVERY = {"the": 1, "golden": 3, "river of": 12, "生而自由": 12, "xylograph": 150, LONG: 150}
QUERIES: list[dict[str, Any]] = [
    {"q": "the"},
    {"q": "golden"},
    {"q": "golden the"},
    {"q": "of river golden"},
    {"q": "而自"},
    {"q": "自而"},
    {"q": "xylograph"},
    {"q": "olden"},
    {"q": LONG},
    {"q": "golden", "language": "fre"},
    {"q": "the", "year_from": 1850, "year_to": 1900},
    {"q": "the", "language": "xx"},
]


async def add_books(resources: Resources, count: int = COUNT) -> list[int]:
    """Figures that repeat, so that walks begin and end among equals; the ids of two authors."""
    random = Random(3)
    rows = []
    for _ in range(count):
        words = [words for words, every in EVERY.items() if random.randrange(every) == 0]
        random.shuffle(words)
        title = " ".join(words)
        rows.append(
            {
                "title": title,
                "published_year": random.choice([None, *range(1800, 2000)]),
                "language": random.choice(["eng", "fre", None]),
                "ratings_count": (rated := random.randrange(20)),
                "ratings_sum": random.randint(rated, 5 * rated),
                **search_words(title, []),
            }
        )
    async with resources["sessions"].write() as session:
        authors = [Author(name=name) for name in ("Many Books", "Few Books")]
        session.add_all(authors)
        await session.flush()
        await session.execute(insert(Book).execution_options(render_nulls=True), rows)
        ids = (await session.scalars(Book.__table__.select().order_by(Book.id))).all()
        links = [
            {"book_id": id, "author_id": author.id, "position": position}
            for position, (author, every) in enumerate(zip(authors, (2, 60), strict=True))
            for id in ids[::every]
        ]
        await session.execute(insert(BookAuthor), links)
        await session.commit()
        return [author.id for author in authors]


@pytest.fixture
def uncached(client: httpx.AsyncClient) -> Catalogue:
    client.headers["Cache-Control"] = "no-store"
    return Catalogue(client, "")


def matches(title: str, q: str) -> bool:
    words = " ".join(word for phrase in phrases(title) for word in phrase)
    return all(f" {' '.join(phrase)} " in f" {words} " for phrase in phrases(q))


@pytest.mark.parametrize("sort", SORTS)
async def test_walks_find_the_same_pages_as_the_index(
    uncached: Catalogue, resources: Resources, sort: str
):
    author_ids = await add_books(resources)
    queries = [*QUERIES, *({"q": "golden", "author_id": id} for id in author_ids)]

    for query in queries:
        filters = {name: value for name, value in query.items() if name != "q"}
        listed = await uncached.walk("/v1/books", sort=sort, limit=100, **filters)
        expected = [book for book in listed if matches(book["title"], query["q"])]
        with index_only():
            by_index = await uncached.walk("/v1/books", sort=sort, limit=17, **query)
        with walks(30, 120):
            by_few_rows = await uncached.walk("/v1/books", sort=sort, limit=17, **query)
        with walks(30, COUNT + 1):
            by_walks = await uncached.walk("/v1/books", sort=sort, limit=17, **query)

        assert by_index == by_few_rows == by_walks == expected, query


@mariadb_only
async def test_rows_that_are_read_for_a_frequent_word_are_bounded(
    uncached: Catalogue, resources: Resources
):
    """Also with a filter that has an index, and where MariaDB would rather sort the table."""
    await add_books(resources, 6000)
    async with resources["sessions"].write() as session:
        await session.execute(text("ANALYZE TABLE books, book_authors, authors"))
    bounds = {
        "q=the": FIRST_WALK,
        "q=golden": FIRST_WALK,
        "q=golden&language=fre": 2 * FIRST_WALK,
        "q=river+of&limit=100": 4000,
        "q=golden&limit=100&language=fre": 2000,
    }

    for sort, (query, most) in product(SORTS, bounds.items()):
        path = f"/v1/books?sort={sort}&{query}"
        with recorded(resources["sessions"]) as statements:
            page = (await uncached.client.get(path)).json()
            await uncached.client.get(f"{path}&after={page['next']}")
        read = [await rows_of_books(resources, statement) for statement in statements]

        assert not any("MATCH" in each.statement for each in statements), path
        assert 0 < max(read) <= most, (path, read)


async def rows_of_books(resources: Resources, query: Query) -> float:
    async with resources["sessions"].read() as session:
        connection = await session.connection()
        plan = await connection.exec_driver_sql(f"ANALYZE {query.statement}", query.parameters)
        steps = [step for step in plan.mappings() if step["table"] == "books"]
    return sum(float(step["r_rows"] or 0) for step in steps)


async def test_rare_word_is_left_to_the_index_after_one_walk(
    uncached: Catalogue, resources: Resources
):
    await add_books(resources)
    await uncached.client.get("/v1/books")

    with walks(30, COUNT), recorded(resources["sessions"]) as statements:
        response = await uncached.client.get("/v1/books", params={"q": "nowhere"})

    assert response.json() == {"items": [], "next": None}
    assert ["MATCH" in each.statement for each in statements] == [False, False, True]


async def test_repeated_search_walks_as_far_as_the_last_one_had_to(
    uncached: Catalogue, resources: Resources
):
    await add_books(resources)
    params: dict[str, Any] = {"q": "river of", "limit": 10}

    with walks(30, COUNT), recorded(resources["sessions"]) as statements:
        pages = [(await uncached.client.get("/v1/books", params=params)).json()["items"]]
        first = len(statements)
        pages += [(await uncached.client.get("/v1/books", params=params)).json()["items"]]

    assert len(pages[0]) == 10
    assert pages[0] == pages[1]
    assert (first, len(statements)) == (4, 6)


@pytest.mark.parametrize(("seconds", "again"), [(600, [True]), (0, [False, False, True])])
async def test_repeated_search_for_a_rare_word_asks_the_index_at_once_for_a_while(
    uncached: Catalogue,
    resources: Resources,
    monkeypatch: pytest.MonkeyPatch,
    seconds: int,
    again: list[bool],
):
    monkeypatch.setattr(book_search, "REMEMBERED", seconds)
    await add_books(resources)

    with walks(30, COUNT), recorded(resources["sessions"]) as statements:
        for _ in range(2):
            await uncached.client.get("/v1/books", params={"q": "nowhere"})

    asked = ["MATCH" in each.statement for each in statements]
    assert asked == [False, False, True, *again]


async def test_later_page_is_walked_for_where_the_first_was_asked_of_the_index(
    uncached: Catalogue, resources: Resources
):
    """Words that are rare where a list begins may be frequent further on, as in titles."""
    await add_books(resources)
    rows = [
        {"title": "zebra", "ratings_count": 0, "ratings_sum": 0, **search_words("zebra", [])}
        for _ in range(20)
    ]
    async with resources["sessions"].write() as session:
        await session.execute(insert(Book), rows)
        await session.commit()

    with walks(30, COUNT):
        page = (await uncached.client.get("/v1/books?q=zebra&limit=10")).json()
        with recorded(resources["sessions"]) as statements:
            await uncached.client.get(f"/v1/books?q=zebra&limit=5&after={page['next']}")

    assert ["MATCH" in each.statement for each in statements] == [False, False]


async def test_words_of_an_authors_books_are_not_looked_up_in_the_index(
    uncached: Catalogue, resources: Resources
):
    author_id, _ = await add_books(resources)

    with recorded(resources["sessions"]) as statements:
        response = await uncached.client.get(f"/v1/books?q=nowhere&author_id={author_id}")

    assert response.json() == {"items": [], "next": None}
    assert ["MATCH" in each.statement for each in statements] == [False]


@sqlite_only
async def test_walk_of_sqlite_ends_too(uncached: Catalogue, resources: Resources):
    await add_books(resources)
    path = "/v1/books?q=nowhere&sort=-average_rating"

    with walks(30, 120), recorded(resources["sessions"]) as statements:
        await uncached.client.get(path)
    async with resources["sessions"].read() as session:
        connection = await session.connection()
        _, walk, _ = statements
        plan = await connection.exec_driver_sql(
            f"EXPLAIN QUERY PLAN {walk.statement}", walk.parameters
        )

    assert "INDEX ix_books_average_rating (average_rating>?)" in f"{plan.all()}"
