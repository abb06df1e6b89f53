"""What books are found by follows the names of their authors, and the rule that splits texts."""

import asyncio

import httpx2 as httpx
from sqlalchemy import insert, select, update

from app.models import Author, Book, BookAuthor
from app.models.full_text import search_words
from app.sample.jobs import rebuild_outdated_words
from app.schemas.search_job import RebuildWords
from app.services.search_index import BATCH, SearchIndexService
from chassis.resources import Resources
from chassis.text.search_words import RULE
from tests.app.catalogue import Catalogue
from tests.jobs import job_context, waiting, work_off
from tests.queries import max_queries

COUNT = 3 * BATCH


async def add_books_of(resources: Resources, name: str, count: int = COUNT) -> int:
    """An author with so many books, straight into the database."""
    async with resources["sessions"].write() as session:
        author = Author(name=name)
        session.add(author)
        await session.flush()
        figures = {"ratings_count": 0, "ratings_sum": 0}
        await session.execute(
            insert(Book),
            [
                {"title": f"Book {n}", **figures, **search_words(f"Book {n}", [name])}
                for n in range(count)
            ],
        )
        ids = await session.scalars(select(Book.id))
        links = [{"book_id": id, "author_id": author.id, "position": 0} for id in ids]
        await session.execute(insert(BookAuthor), links)
        await session.commit()
        return author.id


async def found(client: httpx.AsyncClient, q: str) -> set[int]:
    walked = await Catalogue(client, "").walk("/v1/books", q=q, limit=100)
    return {book["id"] for book in walked}


async def test_new_name_shows_at_once_and_is_found_when_the_job_is_done(
    client: httpx.AsyncClient,
    catalogue: Catalogue,
    resources: Resources,
):
    author_id = await add_books_of(resources, "Currer Bell")
    [first] = (await client.get("/v1/books?limit=1")).json()["items"]
    path = f"/v1/books/{first['id']}"
    old = await client.get(path)
    catalogue_before = await found(client, "bell")

    with max_queries(resources["sessions"], 12):
        renamed = await catalogue.change(f"/v1/authors/{author_id}", name="Charlotte Brontë")
    shown = (await client.get(path)).json()
    listed = (await client.get("/v1/books")).json()["items"]
    before_the_job = await found(client, "bell"), await found(client, "bronte")
    jobs = await work_off(resources)

    assert renamed.status_code == 200
    assert shown == old.json() | {"authors": [{"id": author_id, "name": "Charlotte Brontë"}]}
    assert (await client.get(path)).headers["ETag"] != old.headers["ETag"]
    assert {book["authors"][0]["name"] for book in listed} == {"Charlotte Brontë"}
    assert before_the_job == (catalogue_before, set())
    assert jobs == COUNT // BATCH + 1
    assert (await found(client, "bell"), await found(client, "bronte")) == (
        set(),
        catalogue_before,
    )
    assert (await client.get(path)).json() == shown


async def test_books_that_are_edited_meanwhile_lose_nothing(
    client: httpx.AsyncClient,
    catalogue: Catalogue,
    resources: Resources,
):
    author_id = await add_books_of(resources, "Currer Bell", BATCH + 20)
    other_id = await catalogue.add_author("Anne Brontë")
    books = (await client.get("/v1/books?limit=24")).json()["items"]
    renamed = await catalogue.change(f"/v1/authors/{author_id}", name="Charlotte Nicholls")
    assert renamed.status_code == 200

    async def edit(number: int, id: int) -> httpx.Response:
        if number % 3 == 0:
            return await client.delete(f"/v1/books/{id}", headers=catalogue.editor)
        if number % 3 == 1:
            return await catalogue.change(f"/v1/books/{id}", title=f"Edited{number}")
        return await catalogue.change(f"/v1/books/{id}", author_ids=[other_id, author_id])

    async with asyncio.TaskGroup() as group:
        group.create_task(work_off(resources))
        edits = [group.create_task(edit(n, book["id"])) for n, book in enumerate(books)]
        path = f"/v1/authors/{author_id}"
        edits.append(group.create_task(catalogue.change(path, name="Charlotte Brontë")))
    await work_off(resources)

    assert {each.result().status_code for each in edits} == {200, 204}
    for n, book in enumerate(books):
        title = f"Edited{n}" if n % 3 == 1 else book["title"]
        assert (book["id"] in await found(client, f"charlotte bronte {title}")) == (n % 3 != 0)
    assert await found(client, "nicholls") == await found(client, "currer") == set()
    assert len(await found(client, "anne")) == 8
    assert len(await found(client, "charlotte")) == BATCH + 20 - 8


async def test_edited_book_has_the_new_name_before_the_job(
    client: httpx.AsyncClient, catalogue: Catalogue
):
    author_id = await catalogue.add_author("Currer Bell")
    book = await catalogue.add_book("Jane Eyre", author_ids=[author_id])

    await catalogue.change(f"/v1/authors/{author_id}", name="Charlotte Brontë")
    await catalogue.change(f"/v1/books/{book['id']}", title="Jane Eyre. An Autobiography")

    assert await found(client, "bronte autobiography") == {book["id"]}


async def test_only_a_new_name_of_an_author_with_books_makes_work(
    catalogue: Catalogue, resources: Resources
):
    author_id = await catalogue.add_author("Currer Bell")
    await catalogue.change(f"/v1/authors/{author_id}", name="Charlotte Brontë")
    await catalogue.add_book("Jane Eyre", author_ids=[author_id])

    await catalogue.change(f"/v1/authors/{author_id}", name="Charlotte Bronte\u0308")
    await catalogue.change(f"/v1/authors/{author_id}")

    assert await waiting(resources) == []


async def test_job_that_is_done_twice_makes_no_second_chain(resources: Resources):
    author_id = await add_books_of(resources, "Currer Bell", BATCH)
    service = SearchIndexService(resources)

    for _ in range(2):
        await service.rebuild_of_author(RebuildWords(author_id=author_id, version=2))

    [entry] = await waiting(resources)
    after = RebuildWords.model_validate_json(entry.payload).after
    await service.rebuild_of_author(RebuildWords(author_id=author_id, version=2, after=after))
    assert len(await waiting(resources)) == 1


async def test_books_of_an_older_rule_are_split_again(
    client: httpx.AsyncClient,
    resources: Resources,
):
    await add_books_of(resources, "Currer Bell", BATCH + 5)
    async with resources["sessions"].write.begin() as session:
        old = {"words": "of another rule", "words_rule": RULE - 1, "updated_at": Book.updated_at}
        await session.execute(update(Book).values(old))
    before = await Catalogue(client, "").walk("/v1/books", limit=100)

    assert await found(client, "currer") == set()
    await rebuild_outdated_words(job_context(resources))

    assert len(await found(client, "currer")) == BATCH + 5
    assert await Catalogue(client, "").walk("/v1/books", limit=100) == before
    async with resources["sessions"].read() as session:
        assert set(await session.scalars(select(Book.words_rule))) == {RULE}
