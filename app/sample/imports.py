from collections.abc import Iterable, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import NamedTuple

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.models import Author, Book, BookAuthor
from app.models.full_text import search_words
from app.sample.goodbooks import BadRow, GoodbooksRow, GoodRow, Note
from app.sample.name_variants import NameVariants
from chassis.cache.epoch import ADVANCE
from chassis.database.transactions import retry_on_deadlock


class Batch(NamedTuple):
    added: int
    refused: list[BadRow]
    notes: list[Note]  # of what was added


class ImportService:
    """Adds the books of a goodbooks file that the catalogue does not have."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session
        self.name_variants = NameVariants()

    @retry_on_deadlock
    async def add(self, rows: Sequence[GoodRow]) -> Batch:
        """One batch in one transaction. A book that an earlier import has added is skipped: a file
        can be imported again, and an interrupted import resumed.
        """
        ids = [row.book.goodreads_book_id for row in rows]
        imported = await self._existing(Book.source_id, ids)
        isbns = await self._existing(Book.isbn13, [row.book.isbn for row in rows])
        new: list[GoodRow] = []
        refused: list[BadRow] = []
        for row in rows:
            line, book = row.line, row.book
            if book.goodreads_book_id in imported:
                continue
            if book.isbn in isbns:
                refused.append(BadRow(line, f"another book has the ISBN {book.isbn}"))
                continue
            imported.add(book.goodreads_book_id)
            isbns |= {book.isbn} - {None}
            new.append(row)
        notes = [note for row in new for note in row.notes]
        names = {name for row in new for name in row.book.authors}
        stored = await self._existing(Author.name, names)
        if new:
            notes += await self._insert(new)
        await self.session.commit()
        notes += self.name_variants.notes(new, stored)
        return Batch(len(new), refused, notes)

    @retry_on_deadlock
    async def invalidate(self) -> None:
        """After the last batch: a new cache epoch makes all cached entries stale, without Redis."""
        await self.session.execute(ADVANCE)
        await self.session.commit()

    async def _existing(
        self, column: InstrumentedAttribute[object], values: Iterable[object]
    ) -> set[object]:
        found = await self.session.scalars(select(column).where(column.in_(set(values) - {None})))
        return set(found)

    async def _insert(self, rows: list[GoodRow]) -> list[Note]:
        """Notes on averages that differ from the file."""
        books = [row.book for row in rows]
        names = {name: None for book in books for name in book.authors}
        authors = await self._author_ids(names)
        if missing := [name for name in names if name not in authors]:
            await self.session.execute(insert(Author), [{"name": name} for name in missing])
            authors = await self._author_ids(names)

        await self.session.execute(insert(Book), [_values(book) for book in books])
        source_ids = [book.goodreads_book_id for book in books]
        stored = await self.session.execute(
            select(Book.source_id, Book.id, Book.average_rating).where(
                Book.source_id.in_(source_ids)
            )
        )
        by_source = {row.source_id: row for row in stored}
        await self.session.execute(
            insert(BookAuthor),
            [
                {
                    "book_id": by_source[book.goodreads_book_id].id,
                    "author_id": authors[name],
                    "position": position,
                }
                for book in books
                for position, name in enumerate(book.authors)
            ],
        )
        averages = [by_source[id].average_rating for id in source_ids]
        return [
            _average_note(row, average)
            for row, average in zip(rows, averages, strict=True)
            if Decimal(f"{average:.2f}") != row.book.average_rating
        ]

    async def _author_ids(self, names: Iterable[str]) -> dict[str, int]:
        found = await self.session.execute(
            select(Author.name, Author.id).where(Author.name.in_(names))
        )
        return {row.name: row.id for row in found}


def _average_note(row: GoodRow, stored: float) -> Note:
    """Not every average with two decimals is possible for a number of whole ratings."""
    book = row.book
    text = f"average {book.average_rating} of {book.ratings_count} ratings is not possible"
    return Note(row.line, f"{text}; {stored:.2f} is kept", "average")


def _values(book: GoodbooksRow) -> dict[str, object]:
    total = book.average_rating * book.ratings_count
    return {
        "source_id": book.goodreads_book_id,
        "title": book.title,
        "isbn13": book.isbn,
        "published_year": book.original_publication_year,
        "language": book.language_code,
        "ratings_count": book.ratings_count,
        # The file has only the average, with two decimals: the nearest sum.
        "ratings_sum": int(total.to_integral_value(ROUND_HALF_UP)),
        **search_words(book.title, book.authors),
    }
