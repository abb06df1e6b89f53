"""Keyset pagination: a page begins after the last item of the one before, found by an index."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import from_json
from sqlalchemy import BindParameter, ColumnElement, FromClause, and_, bindparam, null, or_
from sqlalchemy.sql.elements import KeyedColumnElement

from app.errors import Invalid
from app.schemas.page import decode_cursor, encode_cursor
from app.services.cursor_types import cursor_type


@dataclass(frozen=True)
class Sort:
    """By `column`; where that is not unique also by `tie`, in the same direction.

    An index on the column serves both: its entries end with the primary key. Ascending, NULLs come
    first. TypeError if a cursor cannot hold the values of a column.
    """

    name: str
    column: KeyedColumnElement[Any]
    tie: KeyedColumnElement[Any] | None = None
    descending: bool = False

    def __post_init__(self) -> None:
        if _nullable(self._columns()[-1]):
            raise TypeError(f"Sort {self.name}: NULLs need a tie that is never NULL")
        self._cursor_type  # noqa: B018 - raises TypeError

    def by(self, rows: FromClause) -> list[ColumnElement[Any]]:
        """What to order `rows` by: a table, or a subquery that holds both columns."""
        columns = [rows.c[column.key] for column in self._columns()]
        return [column.desc() if self.descending else column.asc() for column in columns]

    def after(self) -> ColumnElement[bool]:
        """The condition for what follows an item; `cursor_params` has its parameters."""
        column = self.column
        value: BindParameter[Any] = bindparam("after_value", type_=column.type)
        beyond = column < value if self.descending else column > value
        if self.tie is None:
            return beyond
        tie: BindParameter[Any] = bindparam("after_tie", type_=self.tie.type)
        further = self.tie < tie if self.descending else self.tie > tie
        if not _nullable(column):
            # MariaDB reads a range of the index for this form, but not for (a, id) > (x, y).
            return or_(beyond, and_(column == value, further))
        if self.descending:
            beyond = or_(beyond, and_(value.is_not(null()), column.is_(null())))
        else:
            beyond = or_(beyond, and_(value.is_(null()), column.is_not(null())))
        return or_(beyond, and_(column.is_not_distinct_from(value), further))

    def cursor(self, item: Any) -> str:
        return self._encode(*(getattr(item, column.key) for column in self._columns()))

    def cursor_params(self, cursor: str) -> dict[str, Any]:
        """The parameters of `after`: where the cursor's item stands, even if it is gone by now."""
        loc = ("query", "after")
        try:
            json = decode_cursor(cursor)
            name = from_json(json)[0]
            if isinstance(name, str) and name != self.name:
                message = f"This cursor belongs to sort={name[:50]}, not to {self.name}"
                raise Invalid(message, loc)
            _, *values = self._cursor_type.validate_json(json, strict=True)
            if self._encode(*values) != cursor:  # a page has one name
                raise ValueError(cursor)
        except (ValueError, TypeError, LookupError):
            raise Invalid("This is not a cursor; pass on the `next` of a page", loc) from None
        return dict(zip(("after_value", "after_tie"), values, strict=False))

    def _encode(self, *values: Any) -> str:
        return encode_cursor(self._cursor_type.dump_json((self.name, *values), warnings="error"))

    @cached_property
    def _cursor_type(self) -> TypeAdapter[tuple[Any, ...]]:
        types = [cursor_type(column) for column in self._columns()]
        values: Any = tuple.__class_getitem__((str, *types))
        return TypeAdapter(values)

    def _columns(self) -> list[KeyedColumnElement[Any]]:
        return [self.column] if self.tie is None else [self.column, self.tie]


def _nullable(column: KeyedColumnElement[Any]) -> bool:
    return bool(getattr(column, "nullable", True))
