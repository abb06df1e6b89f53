"""Sorted and filtered pages of books."""

from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, select

from app.models import Book, BookAuthor
from app.models.full_text import matches_phrases
from app.services.book_queries import BOOKS, NAMES, with_authors
from chassis.database.keyset import Sort

SORTS = {
    sort.name: sort
    for sort in (
        Sort("id", BOOKS.c.id),
        Sort("-average_rating", BOOKS.c.average_rating, BOOKS.c.id, descending=True),
        Sort("-ratings_count", BOOKS.c.ratings_count, BOOKS.c.id, descending=True),
        Sort("title", BOOKS.c.title, BOOKS.c.id),
    )
}
FILTERS = {
    "q": matches_phrases(),
    "author_id": Book.id.in_(
        select(BookAuthor.book_id).where(BookAuthor.author_id == bindparam("author_id"))
    ),
    "language": Book.language == bindparam("language"),
    "year_from": Book.published_year >= bindparam("year_from"),
    "year_to": Book.published_year <= bindparam("year_to"),
}


@cache
def page_statement(sort_name: str, given: frozenset[str]) -> Select[Any]:
    """Built once for each combination: building costs as much as running."""
    sort = SORTS[sort_name]
    conditions = [condition for name, condition in FILTERS.items() if name in given]
    if "after" in given:
        conditions.append(sort.after())
    return page_of(sort, *conditions)


def page_of(sort: Sort, *conditions: ColumnElement[bool], hint: str = "") -> Select[Any]:
    """The first `limit` books that meet the conditions, with their authors; `hint`: of MariaDB."""
    page = (
        select(*(BOOKS.c[name] for name in NAMES))
        .where(*conditions)
        .order_by(*sort.by(BOOKS))
        .limit(bindparam("limit"))
    )
    if hint:
        page = page.with_hint(BOOKS, hint, "mariadb")
    books = page.subquery()
    return with_authors(books, *sort.by(books))
