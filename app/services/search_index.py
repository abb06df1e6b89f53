import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Author, Book, BookAuthor
from app.models.full_text import search_words
from app.schemas.search_job import RebuildWords
from app.services.cache_tags import FOUND_BOOKS
from chassis.database.transactions import retry_on_deadlock
from chassis.jobs.model import OutboxEntry
from chassis.resources import Resources
from chassis.text.search_words import RULE

BATCH = 200  # books of a transaction, so that it locks them for a short time

BOOKS: Any = Book.__table__
OUTDATED = select(Book.id).where(Book.words_rule < RULE).limit(BATCH)
# For clients the book does not change: its version and time stay.
SET_WORDS = (
    update(BOOKS)
    .where(BOOKS.c.id == bindparam("book_id"))
    .values(words=bindparam("new_words"), words_rule=RULE, updated_at=BOOKS.c.updated_at)
)


class SearchIndexService:
    """Rebuilds the words that full-text search indexes (`books.words`), in short transactions."""

    def __init__(self, resources: Resources) -> None:
        self.sessions = resources["sessions"]
        self.cache = resources["cache"]
        self.outbox = resources["outbox"]

    async def rebuild_outdated(self, seconds: float) -> None:
        """Of books that an older rule has split, for so long; then invalidate cached searches."""
        ends_at = time.monotonic() + seconds
        if not (ids := await self._outdated()):
            return
        async with self.cache.invalidating(FOUND_BOOKS):
            while ids and time.monotonic() < ends_at:
                await self._rebuild_batch(ids)
                ids = await self._outdated()

    async def _outdated(self) -> Sequence[int]:
        async with self.sessions.current() as session:
            return (await session.scalars(OUTDATED)).all()

    @retry_on_deadlock
    async def _rebuild_batch(self, ids: Sequence[int]) -> None:
        async with self.sessions.write() as session:
            await _rebuild(session, ids)
            await session.commit()

    @retry_on_deadlock
    async def rebuild_of_author(self, job: RebuildWords) -> None:
        """Of a batch of the author's books; the same transaction writes the job of the next."""
        links = select(BookAuthor.book_id).where(BookAuthor.author_id == job.author_id)
        batch = links.where(BookAuthor.book_id > job.after).order_by(BookAuthor.book_id)
        async with self.sessions.write() as session:
            ids = (await session.scalars(batch.limit(BATCH))).all()
            await _rebuild(session, ids)
            if len(ids) < BATCH:
                async with self.cache.invalidating(FOUND_BOOKS):
                    await session.commit()
                return
            following = job.model_copy(update={"after": ids[-1]})
            # It is there if an attempt before this one was lost after its commit.
            there = select(OutboxEntry.id).where(OutboxEntry.key == following.key)
            if await session.scalar(there) is None:
                await self.outbox.write(session, following, following.key)
            await session.commit()


async def _rebuild(session: AsyncSession, ids: Sequence[int]) -> None:
    """Locks the books, then their authors, as BookService does, before it reads the names."""
    if not ids:
        return
    titles = select(Book.id, Book.title).where(Book.id.in_(ids)).order_by(Book.id)
    books = (await session.execute(titles.with_for_update())).all()
    linked = (
        select(BookAuthor.book_id, Author.name)
        .join(Author)
        .where(BookAuthor.book_id.in_([book.id for book in books]))
        .order_by(BookAuthor.book_id, BookAuthor.position)
    )
    names: defaultdict[int, list[str]] = defaultdict(list)
    for book_id, name in await session.execute(linked.with_for_update(read=True)):
        names[book_id].append(name)
    if books:
        rows = [
            {"book_id": book.id, "new_words": search_words(book.title, names[book.id])["words"]}
            for book in books
        ]
        await (await session.connection()).execute(SET_WORDS, rows)
