from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.cache import Cache
from app.errors import Conflict, NotFound
from app.etag import etag_of
from app.idempotency import ALWAYS, Once
from app.models import Author, BookAuthor
from app.outbox import Outbox
from app.schemas.author import AuthorCreate, AuthorQuery, AuthorRead, AuthorUpdate
from app.schemas.job import RebuildWords
from app.schemas.page import Page
from app.services.keyset import Sort
from app.services.preconditions import UNCONDITIONAL, Preconditions
from app.services.transactions import transaction

AUTHOR_NAMES = "author-names"  # a tag of what shows names beside books
TABLE = Author.__table__
COLUMNS = [TABLE.c[name] for name in AuthorRead.model_fields]
SORTS = {sort.name: sort for sort in (Sort("id", TABLE.c.id), Sort("name", TABLE.c.name))}


class AuthorService:
    def __init__(self, session: AsyncSession, cache: Cache, outbox: Outbox) -> None:
        self.session = session
        self.cache = cache
        self.outbox = outbox

    async def get(self, author_id: int) -> AuthorRead:
        rows = await self.session.execute(select(*COLUMNS).where(Author.id == author_id))
        row = rows.mappings().first()
        if row is None:
            raise NotFound(f"Author {author_id} does not exist")
        return AuthorRead(**row)

    async def page(self, query: AuthorQuery) -> Page[AuthorRead]:
        sort = SORTS[query.sort]
        page = select(*COLUMNS).order_by(*sort.by(TABLE)).limit(query.limit + 1)
        if query.after is not None:
            page = page.where(sort.after()).params(sort.cursor_params(query.after))
        rows = await self.session.execute(page)
        authors = [AuthorRead(**row) for row in rows.mappings()]
        items = authors[: query.limit]
        return Page(items=items, next=sort.cursor(items[-1]) if items != authors else None)

    @transaction
    async def create(
        self,
        body: AuthorCreate,
        once: Once = ALWAYS,
        preconditions: Preconditions = UNCONDITIONAL,
    ) -> AuthorRead:
        if (known := await once.known(self.session, AuthorRead)) is not None:
            return known
        if preconditions:
            # One at a time: each sees what the one before has added.
            first = select(Author.id).order_by(Author.id).limit(1)
            await self.session.execute(first.with_for_update())
            preconditions.check(etag_of(await self.page(AuthorQuery())))
        author = Author(name=body.name)
        self.session.add(author)
        return await self._commit(author, once=once)

    @transaction
    async def update(
        self, author_id: int, body: AuthorUpdate, preconditions: Preconditions = UNCONDITIONAL
    ) -> AuthorRead:
        """A new name shows at once; search finds the author's books by it a little later."""
        author = await self._lock(author_id)
        if preconditions:
            preconditions.check(etag_of(await self.get(author_id)))
        is_renamed = "name" in body.model_fields_set and body.name != author.name
        author.name = body.name if is_renamed else author.name
        author.version += 1
        if not is_renamed or not await self._has_books(author_id):
            return await self._commit(author)
        job = RebuildWords(author_id=author_id, version=author.version)
        return await self._commit(author, AUTHOR_NAMES, job=job)

    @transaction
    async def delete(self, author_id: int, preconditions: Preconditions = UNCONDITIONAL) -> None:
        author = await self._lock(author_id)
        if preconditions:
            preconditions.check(etag_of(await self.get(author_id)))
        await self.session.delete(author)
        try:
            async with self.cache.invalidating("authors", f"author:{author_id}"):
                await self.session.commit()
        except IntegrityError as error:
            raise Conflict(f"Author {author_id} has books; delete those first") from error

    async def _lock(self, author_id: int) -> Author:
        author = await self.session.get(Author, author_id, with_for_update=True)
        if author is None:
            raise NotFound(f"Author {author_id} does not exist")
        return author

    async def _has_books(self, author_id: int) -> bool:
        """As of the lock of the author: until the commit no book can be given to him."""
        links = select(BookAuthor.book_id).where(BookAuthor.author_id == author_id)
        return await self.session.scalar(links.limit(1)) is not None

    async def _commit(
        self, author: Author, *tags: str, once: Once = ALWAYS, job: RebuildWords | None = None
    ) -> AuthorRead:
        name = author.name
        try:
            await self.session.flush()
            # What the database now holds, not what the body said.
            stored = await self.get(author.id)
            await once.keep(self.session, stored)
            entry = None if job is None else await self.outbox.write(self.session, job, job.key)
            async with self.cache.invalidating("authors", f"author:{author.id}", *tags):
                await self.session.commit()
        except IntegrityError as error:
            raise Conflict(f"There is an author named {name} already") from error
        if entry is not None:
            self.outbox.relay(entry)
        return stored
