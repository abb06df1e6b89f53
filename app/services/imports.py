from collections.abc import Iterable, Sequence

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.cache_epoch import ADVANCE
from app.goodbooks import BadRow, GoodbooksRow, GoodRow
from app.models import Author, Book, BookAuthor
from app.models.words import words_of
from app.services.transactions import transaction


class ImportService:
    """Adds the books of a goodbooks file that the catalogue does not have yet."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    @transaction
    async def add(self, rows: Sequence[GoodRow]) -> tuple[int, list[BadRow]]:
        """One batch in one transaction: how many books are new, and which rows are refused.

        A book that an earlier import brought is left as it is, with all that has changed
        since. So a file can be imported again, and one that was interrupted goes on.
        """
        ids = [row.book.goodreads_book_id for row in rows]
        known = await self._existing(Book.source_id, ids)
        isbns = await self._existing(Book.isbn13, [row.book.isbn for row in rows])
        new: list[GoodbooksRow] = []
        refused: list[BadRow] = []
        for line, book in rows:
            if book.goodreads_book_id in known:
                continue
            if book.isbn in isbns:
                refused.append(BadRow(line, f"another book has the ISBN {book.isbn}"))
                continue
            known.add(book.goodreads_book_id)
            isbns |= {book.isbn} - {None}
            new.append(book)
        if new:
            await self._insert(new)
            # So much is new that all caches begin anew, and it needs no Redis.
            await self.session.execute(ADVANCE)
        await self.session.commit()
        return len(new), refused

    async def _existing(
        self, column: InstrumentedAttribute[object], values: Iterable[object]
    ) -> set[object]:
        found = await self.session.scalars(select(column).where(column.in_(set(values) - {None})))
        return set(found)

    async def _insert(self, books: list[GoodbooksRow]) -> None:
        names = {name: None for book in books for name in book.authors}
        authors = await self._author_ids(names)
        if missing := [name for name in names if name not in authors]:
            await self.session.execute(insert(Author), [{"name": name} for name in missing])
            authors = await self._author_ids(names)

        await self.session.execute(insert(Book), [_values(book) for book in books])
        source_ids = [book.goodreads_book_id for book in books]
        stored = await self.session.execute(
            select(Book.source_id, Book.id).where(Book.source_id.in_(source_ids))
        )
        book_ids = {row.source_id: row.id for row in stored}
        await self.session.execute(
            insert(BookAuthor),
            [
                {
                    "book_id": book_ids[book.goodreads_book_id],
                    "author_id": authors[name],
                    "position": place,
                }
                for book in books
                for place, name in enumerate(book.authors)
            ],
        )

    async def _author_ids(self, names: Iterable[str]) -> dict[str, int]:
        found = await self.session.execute(
            select(Author.name, Author.id).where(Author.name.in_(names))
        )
        return {row.name: row.id for row in found}


def _values(book: GoodbooksRow) -> dict[str, object]:
    return {
        "source_id": book.goodreads_book_id,
        "title": book.title,
        "isbn13": book.isbn,
        "published_year": book.original_publication_year,
        "language": book.language_code,
        "ratings_count": book.ratings_count,
        # The file has the average only, to two places: the sum that gives it again.
        "ratings_sum": round(book.average_rating * book.ratings_count),
        "words": " ".join(words_of(book.title, *book.authors)),
    }
