"""Keyset pagination: a page begins after the last item of the one before, found by an index."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, FromClause, and_, bindparam, or_
from sqlalchemy.sql.elements import KeyedColumnElement

from app.errors import Invalid
from app.schemas.book import MAX_ID
from app.schemas.page import decode_cursor, encode_cursor


@dataclass(frozen=True)
class Order:
    """By `column`; where that is not unique also by `tie`, in the same direction.

    An index on the column serves both: its entries end with the primary key.
    """

    name: str
    column: KeyedColumnElement[Any]
    tie: KeyedColumnElement[Any] | None = None
    descending: bool = False

    def by(self, rows: FromClause) -> list[ColumnElement[Any]]:
        """What to order `rows` by: a table, or a subquery that holds both columns."""
        columns = [rows.c[column.key] for column in self._columns()]
        return [column.desc() if self.descending else column.asc() for column in columns]

    def after(self) -> ColumnElement[bool]:
        """The condition for what follows an item; `place` has its parameters."""
        value: BindParameter[Any] = bindparam("after_value")
        tie: BindParameter[int] = bindparam("after_tie")
        beyond = self.column < value if self.descending else self.column > value
        if self.tie is None:
            return beyond
        further = self.tie < tie if self.descending else self.tie > tie
        # MariaDB reads a range of the index for this form, but not for (a, id) > (x, y).
        return or_(beyond, and_(self.column == value, further))

    def cursor(self, item: Any) -> str:
        return encode_cursor(self.name, *(getattr(item, column.key) for column in self._columns()))

    def place(self, cursor: str) -> dict[str, Any]:
        """The parameters of `after`: where the cursor's item stands, even if it is gone by now."""
        loc = ("query", "after")
        no_cursor = Invalid("This is not a cursor; pass on the `next` of a page", loc)
        try:
            name, *values = decode_cursor(cursor)
        except ValueError:
            raise no_cursor from None
        if encode_cursor(name, *values) != cursor:  # a page has one name
            raise no_cursor
        if name != self.name:
            raise Invalid(f"This cursor belongs to sort={name}, not to {self.name}", loc)
        if [type(value) for value in values] != [c.type.python_type for c in self._columns()]:
            raise no_cursor
        if any(isinstance(value, int) and abs(value) > MAX_ID for value in values):
            raise no_cursor
        return dict(zip(("after_value", "after_tie"), values, strict=False))

    def _columns(self) -> list[KeyedColumnElement[Any]]:
        return [self.column] if self.tie is None else [self.column, self.tie]
