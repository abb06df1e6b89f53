from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from app.cache import Cache
from app.errors import Conflict, NotFound
from app.idempotency import ALWAYS, Once
from app.models import Author, Book, BookAuthor
from app.models.words import words_of
from app.schemas.author import AuthorCreate, AuthorQuery, AuthorRead, AuthorUpdate
from app.schemas.page import Page
from app.services.keyset import Order
from app.services.preconditions import ExpectedTags, require_match
from app.services.transactions import transaction

TABLE = Author.__table__
COLUMNS = [TABLE.c[name] for name in AuthorRead.model_fields]
ORDERS = {order.name: order for order in (Order("id", TABLE.c.id), Order("name", TABLE.c.name))}


class AuthorService:
    def __init__(self, session: AsyncSession, cache: Cache) -> None:
        self.session = session
        self.cache = cache

    async def get(self, author_id: int) -> AuthorRead:
        rows = await self.session.execute(select(*COLUMNS).where(Author.id == author_id))
        row = rows.mappings().first()
        if row is None:
            raise NotFound(f"Author {author_id} does not exist")
        return AuthorRead(**row)

    async def page(self, query: AuthorQuery) -> Page[AuthorRead]:
        order = ORDERS[query.sort]
        page = select(*COLUMNS).order_by(*order.by(TABLE)).limit(query.limit + 1)
        if query.after is not None:
            page = page.where(order.after()).params(order.place(query.after))
        rows = await self.session.execute(page)
        authors = [AuthorRead(**row) for row in rows.mappings()]
        items = authors[: query.limit]
        return Page(items=items, next=order.cursor(items[-1]) if items != authors else None)

    @transaction
    async def create(self, body: AuthorCreate, once: Once = ALWAYS) -> AuthorRead:
        if (known := await once.known(self.session, AuthorRead)) is not None:
            return known
        author = Author(name=body.name)
        self.session.add(author)
        return await self._commit(author, once=once)

    @transaction
    async def update(
        self, author_id: int, body: AuthorUpdate, expected: ExpectedTags = None
    ) -> AuthorRead:
        # Books before authors, as BookService locks them: two orders would deadlock.
        await self._lock_books(author_id)
        author = await self._lock(author_id)
        if expected is not None:
            require_match(await self.get(author_id), expected)
        books: Sequence[Book] = []
        if "name" in body.model_fields_set:
            books = await self._lock_books(author_id)  # with those that came before our lock
            author.name = body.name
            for book in books:
                # Its authors' names are what a book shows and how it is found.
                names = (link.author.name for link in book.book_authors)
                book.words = " ".join(words_of(book.title, *names))
                book.version += 1
        author.version += 1
        return await self._commit(author, books)

    @transaction
    async def delete(self, author_id: int) -> None:
        author = await self._lock(author_id)
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

    async def _lock_books(self, author_id: int) -> Sequence[Book]:
        found = await self.session.scalars(
            select(Book)
            .where(Book.id.in_(select(BookAuthor.book_id).filter_by(author_id=author_id)))
            .options(selectinload(Book.book_authors).joinedload(BookAuthor.author))
            .order_by(Book.id)
            .with_for_update()
        )
        return found.all()

    async def _commit(
        self, author: Author, books: Sequence[Book] = (), once: Once = ALWAYS
    ) -> AuthorRead:
        name = author.name
        try:
            await self.session.flush()
            stored = AuthorRead.model_validate(author, from_attributes=True)
            await once.keep(self.session, stored)
            tags = ["authors", f"author:{author.id}", *(f"book:{book.id}" for book in books)]
            async with self.cache.invalidating(*tags, *(["books"] if books else [])):
                await self.session.commit()
        except IntegrityError as error:
            raise Conflict(f"There is an author named {name} already") from error
        return stored
