"""Books with their authors, in one query."""

from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import ColumnElement, FromClause, Select, bindparam, select

from app.models import Author, Book, BookAuthor
from app.schemas.book import BookRead
from chassis.errors import NotFound

BOOKS, AUTHORS, LINKS = Book.__table__, Author.__table__, BookAuthor.__table__
NAMES = [name for name in BookRead.model_fields if name != "authors"]
read_many = TypeAdapter(list[BookRead]).validate_python


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
    books: list[dict[str, Any]] = []
    for *values, author_id, author_name in rows:
        if not books or books[-1]["id"] != values[0]:
            books.append(dict(zip(NAMES, values, strict=True), authors=[]))
        if author_id is not None:
            books[-1]["authors"].append({"id": author_id, "name": author_name})
    return read_many(books)


BOOK_BY_ID = with_authors(BOOKS).where(BOOKS.c.id == bindparam("id"))


def no_book(book_id: int) -> NotFound:
    return NotFound(f"Book {book_id} does not exist")
