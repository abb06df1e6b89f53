from functools import partial

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Author, Book, BookAuthor
from app.schemas.author import AuthorCreate, AuthorQuery, AuthorRead, AuthorUpdate
from app.schemas.search_job import RebuildWords
from app.services.cache_tags import tags_of_book
from chassis.database.keyset import Sort
from chassis.database.transactions import retry_on_deadlock
from chassis.errors import Conflict, NotFound
from chassis.http.etag import etag_of
from chassis.http.preconditions import UNCONDITIONAL, Preconditions
from chassis.idempotency.requests import NO_KEY, IdempotentRequest
from chassis.resources import Resources
from chassis.schemas.fields import differing
from chassis.schemas.page import Page

TABLE = Author.__table__
COLUMNS = [TABLE.c[name] for name in AuthorRead.model_fields]
SORTS = {sort.name: sort for sort in (Sort("id", TABLE.c.id), Sort("name", TABLE.c.name))}
BATCH = 1000  # books of a query


class AuthorService:
    def __init__(self, session: AsyncSession, resources: Resources) -> None:
        self.session = session
        self.cache = resources["cache"]
        self.outbox = resources["outbox"]

    async def get(self, author_id: int) -> AuthorRead:
        rows = await self.session.execute(select(*COLUMNS).where(Author.id == author_id))
        row = rows.mappings().first()
        if row is None:
            raise _no_author(author_id)
        return AuthorRead(**row)

    async def page(self, query: AuthorQuery) -> Page[AuthorRead]:
        sort = SORTS[query.sort]
        page = select(*COLUMNS).order_by(*sort.by(TABLE)).limit(query.limit + 1)
        if query.after is not None:
            page = page.where(sort.after()).params(sort.cursor_params(query.after))
        rows = await self.session.execute(page)
        return sort.page([AuthorRead(**row) for row in rows.mappings()], query.limit)

    @retry_on_deadlock
    async def create(
        self,
        body: AuthorCreate,
        idempotent: IdempotentRequest = NO_KEY,
        preconditions: Preconditions = UNCONDITIONAL,
    ) -> AuthorRead:
        work = partial(self._create, body, preconditions)
        author, is_new = await idempotent.run(self.session, AuthorRead, work)
        if is_new:
            async with self.cache.invalidating("authors", f"author:{author.id}"):
                await self.session.commit()
        return author

    @retry_on_deadlock
    async def update(
        self, author_id: int, body: AuthorUpdate, preconditions: Preconditions = UNCONDITIONAL
    ) -> AuthorRead:
        """A new name shows at once; search finds the author's books by it a little later."""
        author = await self._lock(author_id, preconditions)
        if not (changes := differing(author, body.model_dump(exclude_unset=True))):
            return await self.get(author_id)
        author.name = changes["name"]
        author.version += 1
        stored = await self._store(author)
        if tags := await self._tags_of_books(author_id):
            job = RebuildWords(author_id=author_id, version=author.version)
            await self.outbox.write(self.session, job, job.key)
        async with self.cache.invalidating("authors", f"author:{author_id}", *tags):
            await self.session.commit()
        return stored

    @retry_on_deadlock
    async def delete(self, author_id: int, preconditions: Preconditions = UNCONDITIONAL) -> None:
        await self.session.delete(await self._lock(author_id, preconditions))
        try:
            async with self.cache.invalidating("authors", f"author:{author_id}"):
                await self.session.commit()
        except IntegrityError as error:
            detail = f"Author {author_id} has books, or others refer to it; delete those first"
            raise Conflict(detail) from error

    async def _lock(self, author_id: int, preconditions: Preconditions) -> Author:
        author = await self.session.get(Author, author_id, with_for_update=True)
        if author is None:
            raise _no_author(author_id)
        if preconditions:
            preconditions.check(etag_of(await self.get(author_id)))
        return author

    async def _tags_of_books(self, author_id: int) -> set[str]:
        """Of all that shows the author; until the commit no other book can get this author.

        In batches, between which the event loop serves others.
        """
        tags: set[str] = set()
        after: int | None = 0
        while after is not None:
            batch = (
                select(BookAuthor.book_id)
                .where(BookAuthor.author_id == author_id, BookAuthor.book_id > after)
                .order_by(BookAuthor.book_id)
                .limit(BATCH)
                .subquery()
            )
            links = (
                select(Book.id, Book.language, BookAuthor.author_id)
                .select_from(batch)
                .join(Book, Book.id == batch.c.book_id)
                .join(BookAuthor, BookAuthor.book_id == Book.id)
            )
            rows = (await self.session.execute(links)).all()
            for id, language, other in rows:
                tags |= tags_of_book(id, language, [other])
            ids = {row.id for row in rows}
            after = max(ids) if len(ids) == BATCH else None
        return tags

    async def _create(self, body: AuthorCreate, preconditions: Preconditions) -> AuthorRead:
        if preconditions:
            # One at a time: each sees what the one before has added.
            first = select(Author.id).order_by(Author.id).limit(1)
            await self.session.execute(first.with_for_update())
            preconditions.check(etag_of(await self.page(AuthorQuery())))
        author = Author(name=body.name)
        self.session.add(author)
        return await self._store(author)

    async def _store(self, author: Author) -> AuthorRead:
        name = author.name
        try:
            await self.session.flush()
        except IntegrityError as error:
            raise Conflict(f"There is an author named {name} already") from error
        return await self.get(author.id)


def _no_author(author_id: int) -> NotFound:
    return NotFound(f"Author {author_id} does not exist")
