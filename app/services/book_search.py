"""Pages of a search, read from the full-text index or along the index of the sort.

A full-text index has no order but its own: it collects all books that match, which are then read
and sorted. That is right for rare words. Of frequent ones a page is found sooner by a *walk*: books
are read in the order of the page, and their words looked at, until enough of them match. A walk
ends after a number of rows, so the size of the table does not matter. What share of the rows had
matched is remembered, so that the next search for the same knows how far to walk, or not to. See
docs/performance.md.
"""

import time
from collections import OrderedDict
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Select, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models.full_text import compared_params, has_phrases, phrase_params
from app.schemas.book import BookRead
from app.services.book_pages import FILTERS, SORTS, page_of, page_statement
from app.services.book_queries import BOOKS, fold
from chassis.database.keyset import Sort
from chassis.database.read_session import read_rows

FIRST_WALK = 300  # rows; takes less than a millisecond, which rare words pay in vain
LONGEST_WALK = 10_000  # rows, in all; some 6 ms by id and 30 by other sorts
MARGIN = 2  # a further walk is so many times as long as it is likely to have to be
# A match of the full-text index costs as much as so many rows of a walk: 3 to 5 by most sorts, 10
# by id, and more if a word of several has matches of its own.
MATCH_COST = 20
REMEMBERED = 600  # s; how long a share of matches is relied on
MAX_REMEMBERED = 10_000  # searches


class Matches(NamedTuple):
    """How many of the rows that a walk has read did match."""

    found: int
    rows: int
    table: int  # rows in all

    def rows_for(self, missing: int, longest: int) -> int:
        """How many rows to walk for so many books; 0 if the index is likely to be faster."""
        if not self.found:
            return 0
        likely = missing * self.rows // self.found
        if likely > min(self.table * self.found // self.rows * MATCH_COST, longest):
            return 0
        return min(max(likely * MARGIN, FIRST_WALK), longest)


class MatchMemory:
    """What the last walks of searches have found, in this process; a wrong one only costs time."""

    def __init__(self) -> None:
        self._matches: OrderedDict[int, tuple[Matches, float]] = OrderedDict()

    def get(self, key: int) -> Matches | None:
        matches, until = self._matches.get(key, (None, 0.0))
        return matches if time.monotonic() < until else None

    def put(self, key: int, matches: Matches) -> None:
        self._matches[key] = (matches, time.monotonic() + REMEMBERED)
        self._matches.move_to_end(key)
        if len(self._matches) > MAX_REMEMBERED:
            self._matches.popitem(last=False)


memory = MatchMemory()


async def search(
    session: AsyncSession, sort_name: str, parameters: Mapping[str, Any], phrases: list[list[str]]
) -> list[BookRead]:
    """The first `limit` books that have all phrases. `parameters`: those of the page."""
    compared = compared_params(phrases)
    if compared is not None:
        walk = {**parameters, **compared}
        if "author_id" in parameters:  # whose books are read in less time than all that match
            return fold(await read_rows(session, _walk(sort_name, frozenset(walk)), walk))
        books = await _walk_first(session, sort_name, walk)
        if books is not None:
            return books
    statement = page_statement(sort_name, frozenset(parameters))
    return fold(await read_rows(session, statement, {**parameters, **phrase_params(phrases)}))


async def _walk_first(
    session: AsyncSession, sort_name: str, parameters: Mapping[str, Any]
) -> list[BookRead] | None:
    """None where walks have not found enough, and the index is likely to do so sooner."""
    sort, limit = SORTS[sort_name], parameters["limit"]
    books: list[BookRead] = []
    # Of first pages: where others begin, words may be rare or frequent.
    key = None if "after" in parameters else _key(sort_name, parameters)
    known = None if key is None else memory.get(key)
    walked, rows = 0, known.rows_for(limit, LONGEST_WALK) if known else FIRST_WALK
    while rows:
        walk = {**parameters, "limit": limit - len(books), "skipped": rows - 1}
        end = await read_rows(session, _end(sort_name, "after_value" in walk), walk)
        if end:
            *position, largest_id = end[0]
            walk |= sort.until_params(position)
        books += fold(await read_rows(session, _walk(sort_name, frozenset(walk)), walk))
        if not end or len(books) == limit:
            return books  # before its end: how many rows were read is not known
        parameters = {**parameters, **sort.after_params(position)}
        walked += rows
        matches = Matches(len(books), walked, largest_id)
        if key is not None:
            memory.put(key, matches)
        rows = matches.rows_for(limit - len(books), LONGEST_WALK - walked)
    return None


def _key(sort_name: str, parameters: Mapping[str, Any]) -> int:
    """A hash, as the length of phrases is up to clients."""
    same = {name: value for name, value in parameters.items() if name not in ("q", "limit")}
    return hash((sort_name, *sorted(same.items())))


@cache
def _end(sort_name: str, has_start: bool) -> Select[Any]:
    """Where a walk ends, by the columns of the sort; nothing if the table ends before.

    Also the largest id, as the number of books: an index has it at hand.
    """
    sort = SORTS[sort_name]
    largest_id = select(func.max(BOOKS.c.id)).scalar_subquery()
    end = (
        select(*sort.columns, largest_id)
        .with_hint(BOOKS, _index_hint(sort), "mariadb")
        .order_by(*sort.by(BOOKS))
        .limit(1)
        .offset(bindparam("skipped"))
    )
    return end.where(sort.after()) if has_start else end


@cache
def _walk(sort_name: str, given: frozenset[str]) -> Select[Any]:
    """The page of what matches between two places of the sort, or of an author's books."""
    sort = SORTS[sort_name]
    conditions = [condition for name, condition in FILTERS.items() if name in given - {"q"}]
    conditions.append(has_phrases())
    if "after_value" in given:
        conditions.append(sort.after())
    if "until_value" in given:
        conditions.append(sort.until())
    return page_of(sort, *conditions, hint="" if "author_id" in given else _index_hint(sort))


def _index_hint(sort: Sort) -> str:
    """For MariaDB, which may prefer the index of a filter, or to read and sort the whole table."""
    table: Any = BOOKS
    names = {each.columns.keys()[0]: each.name for each in table.indexes}
    return f"FORCE INDEX ({names.get(sort.column.key, 'PRIMARY')})"
