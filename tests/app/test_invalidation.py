"""What each write invalidates in the shared cache: all that it changed, and nothing else."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import update

from app.models import Book, BookAuthor
from app.sample.jobs import rebuild_outdated_words
from app.schemas.user import Role
from app.services.cache_tags import tags_of_book
from app.services.rankings import RankingService
from app.settings import Settings
from chassis.cache.metrics import CacheMetrics
from chassis.cache.store import RENEWED_AT_ONCE
from chassis.resources import Resources
from tests.accounts import add_account
from tests.app.catalogue import Catalogue
from tests.jobs import job_context, work_off
from tests.process import TIMEOUT
from tests.queries import recorded

ME = "/v1/users/me"
PAST_THE_CACHE = {"Cache-Control": "no-cache"}
WRITING = ("INSERT", "UPDATE", "DELETE")
RATED = {"rating": 4, "text": "Good"}
LISTS = {"all", "by title", "found", "of Mary", "English"}  # that can show Frankenstein


@dataclass
class Library:
    """Frankenstein by Mary, in English, and Candide by Voltaire, in French; both are reviewed."""

    catalogue: Catalogue
    resources: Resources
    settings: Settings
    reader: dict[str, str]
    other_reader: dict[str, str]
    urls: dict[str, str]
    mary: int
    voltaire: int

    async def send(self, method: str, of: str, who: dict[str, str], **body: Any) -> httpx.Response:
        """`of`: a name of `urls`, or a path."""
        json = None if method == "DELETE" else body
        url = self.urls.get(of, of)
        return await self.catalogue.client.request(method, url, json=json, headers=who)

    async def edit(self, method: str, of: str, **body: Any) -> httpx.Response:
        return await self.send(method, of, self.catalogue.editor, **body)

    async def get_all(self, **headers: str) -> dict[str, httpx.Response]:
        client = self.catalogue.client
        return {name: await client.get(url, headers=headers) for name, url in self.urls.items()}


async def author_apart(catalogue: Catalogue, name: str, other: int) -> int:
    """An author whose lists do not share a tag with those of the other by chance."""
    common = tags_of_book(0, None, [])
    number = 0
    while True:
        author_id = await catalogue.add_author(f"{name}{number or ''}")
        if not tags_of_book(0, None, [author_id]) & tags_of_book(0, None, [other]) - common:
            return author_id
        number += 1


async def reader_of(resources: Resources) -> dict[str, str]:
    async with resources["sessions"].write() as session:
        token = await add_account(session, Role.READER, resources["access_tokens"])
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
async def library(catalogue: Catalogue, resources: Resources, settings: Settings) -> Library:
    mary = await catalogue.add_author("Mary")
    voltaire = await author_apart(catalogue, "Voltaire", mary)
    nobody = await catalogue.add_author("Nobody yet")
    first = await catalogue.add_book("Frankenstein", author_ids=[mary], language="eng")
    second = await catalogue.add_book("Candide", author_ids=[voltaire], language="fre")
    reader, other_reader = await reader_of(resources), await reader_of(resources)
    book, other = f"/v1/books/{first['id']}", f"/v1/books/{second['id']}"
    review = await catalogue.client.post(f"{book}/reviews", json=RATED, headers=reader)
    await catalogue.client.post(f"{other}/reviews", json=RATED, headers=other_reader)
    urls = {
        "book": book,
        "other book": other,
        "no book yet": f"/v1/books/{second['id'] + 1}",
        "no reviews yet": f"/v1/books/{second['id'] + 1}/reviews",
        "all": "/v1/books",
        "by title": "/v1/books?sort=title&year_to=2000",
        "found": "/v1/books?q=frankenstein&language=eng",
        "of Mary": f"/v1/books?author_id={mary}&language=eng&limit=5",
        "of Voltaire": f"/v1/books?author_id={voltaire}",
        "English": "/v1/books?language=eng&sort=-average_rating",
        "French": "/v1/books?language=fre",
        "reviews": f"{book}/reviews",
        "review": review.headers["Location"],
        "other reviews": f"{other}/reviews",
        "authors": "/v1/authors",
        "author": f"/v1/authors/{mary}",
        "other author": f"/v1/authors/{voltaire}",
        "author of nothing": f"/v1/authors/{nobody}",
        "ranking": "/v1/rankings/books",
    }
    return Library(catalogue, resources, settings, reader, other_reader, urls, mary, voltaire)


Write = Callable[[Library], Awaitable[httpx.Response]]
WRITES: dict[str, tuple[Write, set[str]]] = {
    "book, unchanged": (
        lambda library: library.edit(
            "PATCH", "book", title=" Frankenstein ", language="eng", author_ids=[library.mary] * 2
        ),
        set(),
    ),
    "book, without a field": (lambda library: library.edit("PATCH", "book"), set()),
    "title of a book": (
        lambda library: library.edit("PATCH", "book", title="Prometheus"),
        {"book", *LISTS},
    ),
    "language of a book": (
        lambda library: library.edit("PATCH", "book", language="fre"),
        {"book", "French", *LISTS},
    ),
    "authors of a book": (
        lambda library: library.edit("PATCH", "book", author_ids=[library.voltaire]),
        {"book", "of Voltaire", *LISTS},
    ),
    "new book": (
        lambda library: library.edit(
            "POST", "all", title="Mathilda", language="eng", author_ids=[library.mary]
        ),
        {"no book yet", "no reviews yet", *LISTS},
    ),
    "book, deleted": (
        lambda library: library.edit("DELETE", "book"),
        {"book", "reviews", "review", *LISTS},
    ),
    "author, unchanged": (lambda library: library.edit("PATCH", "author", name="Mary"), set()),
    "name of an author": (
        lambda library: library.edit("PATCH", "author", name="Mary Shelley"),
        {"author", "authors", "book", *LISTS},
    ),
    "name of an author without books": (
        lambda library: library.edit("PATCH", "author of nothing", name="Nobody"),
        {"author of nothing", "authors"},
    ),
    "new author": (lambda library: library.edit("POST", "authors", name="Jane"), {"authors"}),
    "author, deleted": (
        lambda library: library.edit("DELETE", "author of nothing"),
        {"author of nothing", "authors"},
    ),
    "new review": (
        lambda library: library.send("POST", "reviews", library.other_reader, **RATED),
        {"book", "reviews", "review", *LISTS},
    ),
    "review, unchanged": (
        lambda library: library.send("PATCH", "review", library.reader, **RATED),
        set(),
    ),
    "text of a review": (
        lambda library: library.send("PATCH", "review", library.reader, text="Bad"),
        {"reviews", "review"},
    ),
    "rating of a review": (
        lambda library: library.send("PATCH", "review", library.reader, rating=1),
        {"book", "reviews", "review", *LISTS},
    ),
    "review, deleted": (
        lambda library: library.send("DELETE", "review", library.reader),
        {"book", "reviews", "review", *LISTS},
    ),
}


async def invalidated(library: Library, write: Write) -> set[str]:
    """The names of the URLs that are loaded anew after the write; none may show what is old."""
    await library.get_all()
    before = await library.get_all()
    assert {response.headers["X-Cache"] for response in before.values()} == {"HIT"}

    written = await write(library)

    assert written.is_success, written.text
    after = await library.get_all()
    current = await library.get_all(**PAST_THE_CACHE)
    for name in library.urls.keys() - {"ranking"}:
        assert after[name].headers.get("ETag") == current[name].headers.get("ETag"), name
        assert after[name].status_code == current[name].status_code, name
    return {name for name, response in after.items() if response.headers["X-Cache"] != "HIT"}


@pytest.mark.parametrize(("write", "changed"), WRITES.values(), ids=WRITES)
async def test_write_invalidates_what_it_changes_and_nothing_else(
    library: Library, write: Write, changed: set[str]
):
    assert await invalidated(library, write) == changed


async def test_new_name_of_an_account_shows_in_its_reviews_and_ends_no_others(library: Library):
    def rename(library: Library) -> Awaitable[httpx.Response]:
        return library.send("PATCH", ME, library.reader, name="Percy")

    assert await invalidated(library, rename) == {"reviews", "review"}
    assert await invalidated(library, rename) == set()


async def test_new_name_of_an_account_ends_no_more_than_its_latest_reviews(
    library: Library, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("app.sample.reviewers.MAX_REVIEWED", 1)
    await library.send("POST", "other reviews", library.reader, **RATED)
    await library.get_all()

    await library.send("PATCH", ME, library.reader, name="Percy")

    after = await library.get_all()
    states = [after[name].headers["X-Cache"] for name in ("other reviews", "reviews")]
    assert states == ["MISS", "HIT"]


async def test_words_that_are_split_again_end_searches_once_and_nothing_else(library: Library):
    """Those of a renamed author, and those that an older rule has split."""

    async def rename_and_work(library: Library) -> httpx.Response:
        renamed = await library.edit("PATCH", "author", name="Mary Shelley")
        await library.get_all()
        await work_off(library.resources)
        return renamed

    async def split(library: Library) -> httpx.Response:
        async with library.resources["sessions"].write.begin() as session:
            old = {"words": "", "words_rule": 0, "updated_at": Book.updated_at}
            await session.execute(update(Book).values(old))
        return await nothing_to_split(library)

    async def nothing_to_split(library: Library) -> httpx.Response:
        await rebuild_outdated_words(job_context(library.resources))
        return await library.edit("PATCH", "book")

    assert await invalidated(library, rename_and_work) == {"found"}
    assert await invalidated(library, split) == {"found"}
    assert await invalidated(library, nothing_to_split) == set()


@pytest.mark.parametrize(
    ("of", "who", "body"),
    [
        ("book", "editor", {"title": "Frankenstein"}),
        ("author", "editor", {"name": "Mary"}),
        ("review", "reader", RATED),
        (ME, "reader", {"name": "Percy"}),
    ],
)
async def test_change_that_changes_nothing_writes_nothing_and_keeps_the_etag(
    library: Library, of: str, who: str, body: dict[str, Any]
):
    headers = library.reader if who == "reader" else library.catalogue.editor
    before = await library.send("PATCH", of, headers, **body)
    renewals = library.resources["metrics"].of(CacheMetrics).cache_invalidations["done"]._value.get

    count = renewals()
    with recorded(library.resources["sessions"]) as queries:
        condition = headers | {"If-Match": before.headers["ETag"]}
        response = await library.send("PATCH", of, condition, **body)
        stale = await library.send("PATCH", of, headers | {"If-Match": '"old"'}, **body)

    assert (response.status_code, response.content) == (200, before.content)
    assert response.headers["ETag"] == before.headers["ETag"]
    assert stale.status_code == 412
    assert queries
    assert [q.statement for q in queries if q.statement.startswith(WRITING)] == []
    assert renewals() == count


async def test_new_name_of_an_author_shows_in_more_books_than_are_invalidated_at_once(
    library: Library,
):
    async with library.resources["sessions"].write() as session:
        books = [Book(title="Title", words="") for _ in range(2 * RENEWED_AT_ONCE + 1)]
        for book in books:
            book.book_authors = [BookAuthor(author_id=library.mary, position=0)]
        session.add_all(books)
        await session.commit()
    urls = [f"/v1/books/{book.id}" for book in books[:: RENEWED_AT_ONCE // 10]]
    client = library.catalogue.client
    await asyncio.gather(*(client.get(url) for url in [*urls, library.urls["other book"]]))

    await library.edit("PATCH", "author", name="Mary Shelley")
    shown = [(await client.get(url)).json()["authors"][0]["name"] for url in urls]
    other = await client.get(library.urls["other book"])

    assert set(shown) == {"Mary Shelley"}
    assert other.headers["X-Cache"] == "HIT"


async def test_ranking_ends_by_time_alone(library: Library):
    service = RankingService(library.resources)
    service.ttl = 0.2

    before = await service.books(1)
    await library.send("PATCH", "review", library.reader, rating=1)
    after = await service.books(1)
    async with asyncio.timeout(TIMEOUT):
        while (last := await service.books(1)) == before:
            pass

    assert after == before
    assert last.items[0].book.title == "Candide"


async def test_no_list_is_older_than_a_write_that_has_returned(
    client: httpx.AsyncClient, catalogue: Catalogue
):
    """Each book goes from list to list, while others read all of them the whole time."""
    authors = [await catalogue.add_author(f"Author {n}") for n in range(3)]
    languages = ["eng", "fre", "ger"]
    lists = ["/v1/books", "/v1/books?q=moving"]
    lists += [f"/v1/books?author_id={author_id}" for author_id in authors]
    lists += [f"/v1/books?language={language}" for language in languages]
    hits = stale = 0
    moving = True

    async def read() -> None:
        nonlocal hits
        while moving:
            for path in lists:
                hits += (await client.get(path)).headers["X-Cache"] == "HIT"

    async def move(number: int) -> None:
        nonlocal stale
        book = await catalogue.add_book(f"Moving {number}", author_ids=authors[:1], language="eng")
        for n in range(20):
            to = {"author_ids": [authors[n % 3]], "language": languages[(n + number) % 3]}
            changed = (await catalogue.change(f"/v1/books/{book['id']}", **to)).json()
            for path in lists:
                shown = (await client.get(path)).json()["items"]
                expected = path in lists[:2] or path.endswith(
                    (f"author_id={authors[n % 3]}", f"language={to['language']}")
                )
                stale += (changed in shown) is not expected

    async def rename(number: int) -> None:
        nonlocal stale
        for n in range(10):
            name = f"Author {number} {n}"
            await catalogue.change(f"/v1/authors/{authors[number]}", name=name)
            for path in lists:
                shown = (await client.get(path)).text
                stale += f"Author {number} {n - 1}" in shown

    async with asyncio.TaskGroup() as readers:
        for _ in range(2):
            readers.create_task(read())
        async with asyncio.TaskGroup() as writers:
            for number in range(2):
                writers.create_task(move(number))
        moving = False
    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(rename(number))

    assert stale == 0
    assert hits > 0  # how many depends on what else the machine does
