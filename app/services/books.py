from functools import partial

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from app.models import Author, Book, BookAuthor
from app.models.full_text import search_words
from app.schemas.book import BookCreate, BookQuery, BookRead, BookUpdate
from app.services.book_pages import SORTS, page_statement
from app.services.book_queries import BOOK_BY_ID, fold, no_book
from app.services.book_search import search
from app.services.cache_tags import tags_of_book
from chassis.database.read_session import read_rows
from chassis.database.transactions import retry_on_deadlock
from chassis.errors import Conflict, Invalid
from chassis.http.etag import etag_of
from chassis.http.preconditions import UNCONDITIONAL, Preconditions
from chassis.idempotency.requests import NO_KEY, IdempotentRequest
from chassis.resources import Resources
from chassis.schemas.fields import differing
from chassis.schemas.page import Page
from chassis.text.search_words import phrases

MAX_WORDS = 200  # of a query; some characters are several words


class BookService:
    def __init__(self, session: AsyncSession, resources: Resources) -> None:
        self.session = session
        self.cache = resources["cache"]

    async def get(self, book_id: int) -> BookRead:
        books = fold(await read_rows(self.session, BOOK_BY_ID, {"id": book_id}))
        if not books:
            raise no_book(book_id)
        return books[0]

    async def page(self, query: BookQuery) -> Page[BookRead]:
        sort = SORTS[query.sort]
        given = query.model_dump(exclude_none=True)
        parameters = {**given, "limit": query.limit + 1}
        if query.after is not None:
            parameters |= sort.cursor_params(query.after)
        if query.q is not None:
            books = await search(self.session, query.sort, parameters, _phrases(query.q))
        else:
            statement = page_statement(query.sort, frozenset(given))
            books = fold(await read_rows(self.session, statement, parameters))
        return sort.page(books, query.limit)

    @retry_on_deadlock
    async def create(
        self,
        body: BookCreate,
        idempotent: IdempotentRequest = NO_KEY,
        preconditions: Preconditions = UNCONDITIONAL,
    ) -> BookRead:
        work = partial(self._create, body, preconditions)
        book, is_new = await idempotent.run(self.session, BookRead, work)
        if is_new:
            tags = tags_of_book(book.id, book.language, [author.id for author in book.authors])
            # That there is no book with this id may have been cached.
            async with self.cache.invalidating(f"reviews:{book.id}", *tags):
                await self.session.commit()
        return book

    @retry_on_deadlock
    async def update(
        self, book_id: int, body: BookUpdate, preconditions: Preconditions = UNCONDITIONAL
    ) -> BookRead:
        book = await self._lock(book_id, preconditions)
        before, old_ids = _tags(book), _author_ids(book)
        given = body.model_dump(exclude_unset=True)
        author_ids = given.pop("author_ids", old_ids)
        changes = differing(book, given)
        if not changes and list(dict.fromkeys(author_ids)) == old_ids:
            return await self.get(book_id)
        for name, value in changes.items():
            setattr(book, name, value)
        _set_authors(book, await self._lock_authors(author_ids))
        book.version += 1
        stored = await self._store(book)
        async with self.cache.invalidating(*before | _tags(book)):
            await self.session.commit()
        return stored

    @retry_on_deadlock
    async def delete(self, book_id: int, preconditions: Preconditions = UNCONDITIONAL) -> None:
        book = await self._lock(book_id, preconditions)
        tags = _tags(book)
        await self.session.delete(book)
        async with self.cache.invalidating(f"reviews:{book_id}", *tags):
            await self.session.commit()

    async def _lock(self, book_id: int, preconditions: Preconditions) -> Book:
        book = await self.session.scalar(
            select(Book)
            .where(Book.id == book_id)
            .options(selectinload(Book.book_authors))
            .with_for_update()
        )
        if book is None:
            raise no_book(book_id)
        if preconditions:
            preconditions.check(etag_of(await self.get(book_id)))
        return book

    async def _lock_authors(self, author_ids: list[int]) -> list[Author]:
        """In the order given; none can be renamed or deleted before the commit."""
        found = await self.session.scalars(
            select(Author).where(Author.id.in_(author_ids)).with_for_update(read=True)
        )
        authors = {author.id: author for author in found}
        for author_id in author_ids:
            if author_id not in authors:
                raise Invalid(f"Author {author_id} does not exist", ("body", "author_ids"))
        return [authors[author_id] for author_id in dict.fromkeys(author_ids)]

    async def _create(self, body: BookCreate, preconditions: Preconditions) -> BookRead:
        if preconditions:
            # One at a time: each sees what the one before has added.
            await self.session.execute(select(Book.id).order_by(Book.id).limit(1).with_for_update())
            preconditions.check(etag_of(await self.page(BookQuery())))
        book = Book(**body.model_dump(exclude={"author_ids"}))
        _set_authors(book, await self._lock_authors(body.author_ids))
        self.session.add(book)
        return await self._store(book)

    async def _store(self, book: Book) -> BookRead:
        try:
            await self.session.flush()
        except IntegrityError as error:
            # The one unique value of a book that a client can set.
            raise Conflict("Another book has this ISBN") from error
        # Read before the commit, so that nothing fails, or changes, between that and the response.
        return await self.get(book.id)


def _set_authors(book: Book, authors: list[Author]) -> None:
    book.book_authors = [
        BookAuthor(author_id=author.id, position=position)
        for position, author in enumerate(authors)
    ]
    for column, value in search_words(book.title, (author.name for author in authors)).items():
        setattr(book, column, value)


def _author_ids(book: Book) -> list[int]:
    return [link.author_id for link in book.book_authors]


def _tags(book: Book) -> set[str]:
    return tags_of_book(book.id, book.language, _author_ids(book))


def _phrases(q: str) -> list[list[str]]:
    found = phrases(q)
    if not found:
        raise Invalid("Has no word to search for", ("query", "q"))
    if sum(map(len, found)) > MAX_WORDS:
        raise Invalid(f"Has more than {MAX_WORDS} words", ("query", "q"))
    return found
