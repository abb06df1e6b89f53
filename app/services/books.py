from collections.abc import Iterable
from functools import cache
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import ColumnElement, FromClause, Select, bindparam, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from app.cache import Cache
from app.errors import Conflict, Invalid, NotFound
from app.etag import etag_of
from app.idempotency import ALWAYS, Once
from app.models import Author, Book, BookAuthor
from app.models.words import has_words, search, search_words
from app.schemas.book import BookCreate, BookQuery, BookRead, BookUpdate
from app.schemas.page import Page
from app.services.keyset import Sort
from app.services.preconditions import UNCONDITIONAL, Preconditions
from app.services.transactions import transaction
from app.tokenizer import phrases

BOOKS, AUTHORS, LINKS = Book.__table__, Author.__table__, BookAuthor.__table__
SORTS = {
    sort.name: sort
    for sort in (
        Sort("id", BOOKS.c.id),
        Sort("-average_rating", BOOKS.c.average_rating, BOOKS.c.id, descending=True),
        Sort("-ratings_count", BOOKS.c.ratings_count, BOOKS.c.id, descending=True),
        Sort("title", BOOKS.c.title, BOOKS.c.id),
    )
}
NAMES = [name for name in BookRead.model_fields if name != "authors"]
FILTERS = {
    "q": has_words(),
    "author_id": Book.id.in_(
        select(BookAuthor.book_id).where(BookAuthor.author_id == bindparam("author_id"))
    ),
    "language": Book.language == bindparam("language"),
    "year_from": Book.published_year >= bindparam("year_from"),
    "year_to": Book.published_year <= bindparam("year_to"),
}
MAX_WORDS = 200  # of a query; a few characters stand for several words
read_many = TypeAdapter(list[BookRead]).validate_python


class BookService:
    def __init__(self, session: AsyncSession, cache: Cache) -> None:
        self.session = session
        self.cache = cache

    async def get(self, book_id: int) -> BookRead:
        books = fold(await self.session.execute(BOOK_BY_ID, {"id": book_id}))
        if not books:
            raise NotFound(f"Book {book_id} does not exist")
        return books[0]

    async def page(self, query: BookQuery) -> Page[BookRead]:
        sort = SORTS[query.sort]
        given = query.model_dump(exclude_none=True)
        parameters = {**given, "limit": query.limit + 1}
        if query.after is not None:
            parameters |= sort.cursor_params(query.after)
        if query.q is not None:
            parameters |= search(_phrases(query.q))
        statement = page_statement(query.sort, frozenset(given))
        books = fold(await self.session.execute(statement, parameters))
        items = books[: query.limit]
        return Page(items=items, next=sort.cursor(items[-1]) if items != books else None)

    @transaction
    async def create(
        self,
        body: BookCreate,
        once: Once = ALWAYS,
        preconditions: Preconditions = UNCONDITIONAL,
    ) -> BookRead:
        if (known := await once.known(self.session, BookRead)) is not None:
            return known
        if preconditions:
            # One at a time: each sees what the one before has added.
            await self.session.execute(select(Book.id).order_by(Book.id).limit(1).with_for_update())
            preconditions.check(etag_of(await self.page(BookQuery())))
        book = Book(**body.model_dump(exclude={"author_ids"}))
        _set_authors(book, await self._lock_authors(body.author_ids))
        self.session.add(book)
        return await self._store(book, once)

    @transaction
    async def update(
        self, book_id: int, body: BookUpdate, preconditions: Preconditions = UNCONDITIONAL
    ) -> BookRead:
        book = await self._lock(book_id)
        if preconditions:
            preconditions.check(etag_of(await self.get(book_id)))
        changes = body.model_dump(exclude_unset=True)
        author_ids = changes.pop("author_ids", [link.author_id for link in book.book_authors])
        for name, value in changes.items():
            setattr(book, name, value)
        _set_authors(book, await self._lock_authors(author_ids))
        book.version += 1
        return await self._store(book)

    @transaction
    async def delete(self, book_id: int, preconditions: Preconditions = UNCONDITIONAL) -> None:
        book = await self._lock(book_id)
        if preconditions:
            preconditions.check(etag_of(await self.get(book_id)))
        await self.session.delete(book)
        async with self.cache.invalidating("books", f"book:{book_id}", f"reviews:{book_id}"):
            await self.session.commit()

    async def _lock(self, book_id: int) -> Book:
        book = await self.session.scalar(
            select(Book)
            .where(Book.id == book_id)
            .options(selectinload(Book.book_authors))
            .with_for_update()
        )
        if book is None:
            raise NotFound(f"Book {book_id} does not exist")
        return book

    async def _lock_authors(self, author_ids: list[int]) -> list[Author]:
        """In the order given; nobody renames or deletes one of them before the commit."""
        found = await self.session.scalars(
            select(Author).where(Author.id.in_(author_ids)).with_for_update(read=True)
        )
        authors = {author.id: author for author in found}
        for author_id in author_ids:
            if author_id not in authors:
                raise Invalid(f"Author {author_id} does not exist", ("body", "author_ids"))
        return [authors[author_id] for author_id in dict.fromkeys(author_ids)]

    async def _store(self, book: Book, once: Once = ALWAYS) -> BookRead:
        try:
            await self.session.flush()
        except IntegrityError as error:
            # The one unique value of a book that a client can set.
            raise Conflict("Another book has this ISBN") from error
        # Read before the commit: nothing may fail, or change, between it and the answer.
        stored = await self.get(book.id)
        await once.keep(self.session, stored)
        # The id of a new book as well: that it does not exist may have been cached.
        async with self.cache.invalidating("books", f"book:{book.id}"):
            await self.session.commit()
        return stored


def _set_authors(book: Book, authors: list[Author]) -> None:
    book.book_authors = [
        BookAuthor(author_id=author.id, position=place) for place, author in enumerate(authors)
    ]
    for column, value in search_words(book.title, (author.name for author in authors)).items():
        setattr(book, column, value)


def _phrases(q: str) -> list[list[str]]:
    found = phrases(q)
    if not found:
        raise Invalid("This holds no word to look for", ("query", "q"))
    if sum(map(len, found)) > MAX_WORDS:
        raise Invalid(f"This holds more than {MAX_WORDS} words", ("query", "q"))
    return found


@cache
def page_statement(sort_name: str, given: frozenset[str]) -> Select[Any]:
    """Built once for each combination: building costs as much as running."""
    sort = SORTS[sort_name]
    page = (
        select(*(BOOKS.c[name] for name in NAMES))
        .where(*(condition for name, condition in FILTERS.items() if name in given))
        .order_by(*sort.by(BOOKS))
        .limit(bindparam("limit"))
    )
    if "after" in given:
        page = page.where(sort.after())
    books = page.subquery()
    return with_authors(books, *sort.by(books))


def with_authors(books: FromClause, *order: ColumnElement[Any]) -> Select[Any]:
    """`books` (a table or a subquery) with a row for each author: one query instead of two."""
    return (
        select(*(books.c[name] for name in NAMES), AUTHORS.c.id, AUTHORS.c.name)
        .select_from(books)
        .outerjoin(LINKS, LINKS.c.book_id == books.c.id)
        .outerjoin(AUTHORS, AUTHORS.c.id == LINKS.c.author_id)
        .order_by(*order, LINKS.c.position)
    )


def fold(rows: Iterable[Any]) -> list[BookRead]:
    """The books of such rows, each with its authors."""
    books: list[dict[str, Any]] = []
    for *values, author_id, author_name in rows:
        if not books or books[-1]["id"] != values[0]:
            books.append(dict(zip(NAMES, values, strict=True), authors=[]))
        if author_id is not None:
            books[-1]["authors"].append({"id": author_id, "name": author_name})
    return read_many(books)


BOOK_BY_ID = with_authors(BOOKS).where(BOOKS.c.id == bindparam("id"))
