from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.cache import Cache
from app.database import Sessions
from app.models import Author, Book, BookAuthor, OutboxEntry
from app.models.words import search_words
from app.outbox import Outbox
from app.schemas.job import RebuildWords
from app.services.transactions import transaction
from app.tokenizer import RULE

BATCH = 200  # books of a transaction: others do not wait long for them

BOOKS: Any = Book.__table__
OUTDATED = select(Book.id).where(Book.words_rule < RULE).limit(BATCH)
# Nobody changes a book for this: its version and its time stay.
SET_WORDS = (
    update(BOOKS)
    .where(BOOKS.c.id == bindparam("book_id"))
    .values(words=bindparam("new_words"), words_rule=RULE, updated_at=BOOKS.c.updated_at)
)


class WordService:
    """Rebuilds what books are found by, in short transactions."""

    def __init__(self, sessions: Sessions, cache: Cache, outbox: Outbox) -> None:
        self.sessions = sessions
        self.cache = cache
        self.outbox = outbox

    @transaction
    async def rebuild_outdated(self) -> bool:
        """A batch of those that an older rule has split. Whether there was one."""
        async with self.sessions.current() as session:
            ids = (await session.scalars(OUTDATED)).all()
        if not ids:
            return False
        async with self.sessions.write() as session:
            await _rebuild(session, ids)
            async with self.cache.invalidating("books"):
                await session.commit()
        return True

    @transaction
    async def rebuild_of_author(self, job: RebuildWords) -> None:
        """A batch of the author's books, and a job for those after it, in one transaction."""
        links = select(BookAuthor.book_id).where(BookAuthor.author_id == job.author_id)
        batch = links.where(BookAuthor.book_id > job.after).order_by(BookAuthor.book_id)
        async with self.sessions.write() as session:
            ids = (await session.scalars(batch.limit(BATCH))).all()
            await _rebuild(session, ids)
            if len(ids) < BATCH:
                async with self.cache.invalidating("books"):
                    await session.commit()
                return
            following = job.model_copy(update={"after": ids[-1]})
            # It is there if an attempt before this one was lost after its commit.
            there = select(OutboxEntry.id).where(OutboxEntry.key == following.key)
            entry = await session.scalar(there)
            if entry is None:
                entry = await self.outbox.write(session, following, following.key)
            await session.commit()
        self.outbox.relay(entry)


async def _rebuild(session: AsyncSession, ids: Sequence[int]) -> None:
    """Locks the books, then their authors, as BookService does; so it uses what is true now."""
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
