"""Keyset pagination: an index finds the items after the last one of the previous page."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from pydantic import TypeAdapter
from pydantic_core import from_json
from sqlalchemy import BindParameter, ColumnElement, FromClause, and_, bindparam, null, or_
from sqlalchemy.sql.elements import KeyedColumnElement

from chassis.database.keyset_types import cursor_type
from chassis.errors import Invalid
from chassis.schemas.page import Page, decode_cursor, encode_cursor

T = TypeVar("T")


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
        if _nullable(self.columns[-1]):
            raise TypeError(f"Sort {self.name}: NULLs need a tie that is never NULL")
        self._cursor_type  # noqa: B018 - raises TypeError

    def by(self, rows: FromClause) -> list[ColumnElement[Any]]:
        """The ORDER BY of `rows`: a table, or a subquery that has both columns."""
        columns = [rows.c[column.key] for column in self.columns]
        return [column.desc() if self.descending else column.asc() for column in columns]

    def after(self) -> ColumnElement[bool]:
        """The condition for what follows an item; `cursor_params` has its parameters."""
        return self._beyond("after", self.descending, inclusive=False)

    def until(self) -> ColumnElement[bool]:
        """The condition for an item and what precedes it; `until_params` has its parameters."""
        until = self._beyond("until", not self.descending, inclusive=True)
        column = self.column
        if self.tie is None or _nullable(column):
            return until
        # Without it, SQLite would read the index beyond the item, to its end.
        value: BindParameter[Any] = bindparam("until_value", type_=column.type)
        return and_(_compare(column, value, not self.descending, inclusive=True), until)

    def _beyond(self, name: str, descending: bool, inclusive: bool) -> ColumnElement[bool]:
        """What follows an item in this direction, and with `inclusive` the item itself."""
        column = self.column
        value: BindParameter[Any] = bindparam(f"{name}_value", type_=column.type)
        if self.tie is None:
            return _compare(column, value, descending, inclusive)
        beyond = _compare(column, value, descending, inclusive=False)
        tie: BindParameter[Any] = bindparam(f"{name}_tie", type_=self.tie.type)
        further = _compare(self.tie, tie, descending, inclusive)
        if not _nullable(column):
            # MariaDB reads a range of the index for this form, but not for (a, id) > (x, y).
            return or_(beyond, and_(column == value, further))
        if descending:
            beyond = or_(beyond, and_(value.is_not(null()), column.is_(null())))
        else:
            beyond = or_(beyond, and_(value.is_(null()), column.is_not(null())))
        return or_(beyond, and_(column.is_not_distinct_from(value), further))

    def page(self, items: list[T], limit: int) -> Page[T]:
        """`items`: `limit` and one more, where there is a next page."""
        more = len(items) > limit
        return Page(items=items[:limit], next=self.cursor(items[limit - 1]) if more else None)

    def cursor(self, item: Any) -> str:
        return self._encode(*(getattr(item, column.key) for column in self.columns))

    def cursor_params(self, cursor: str) -> dict[str, Any]:
        """The parameters of `after`: the item's values, even if it is deleted by now."""
        loc = ("query", "after")
        try:
            json = decode_cursor(cursor)
            name = from_json(json)[0]
            if isinstance(name, str) and name != self.name:
                message = f"This cursor belongs to sort={name[:50]}, not to {self.name}"
                raise Invalid(message, loc)
            _, *values = self._cursor_type.validate_json(json, strict=True)
            if self._encode(*values) != cursor:  # each page has one cursor
                raise ValueError(cursor)
        except (ValueError, TypeError, LookupError):
            raise Invalid("This is not a cursor; pass on the `next` of a page", loc) from None
        return self.after_params(values)

    def after_params(self, values: Sequence[Any]) -> dict[str, Any]:
        """The parameters of `after`, by the item's values of `columns`."""
        return dict(zip(("after_value", "after_tie"), values, strict=False))

    def until_params(self, values: Sequence[Any]) -> dict[str, Any]:
        """The parameters of `until`, by the item's values of `columns`."""
        return dict(zip(("until_value", "until_tie"), values, strict=False))

    def _encode(self, *values: Any) -> str:
        return encode_cursor(self._cursor_type.dump_json((self.name, *values), warnings="error"))

    @cached_property
    def _cursor_type(self) -> TypeAdapter[tuple[Any, ...]]:
        types = [cursor_type(column) for column in self.columns]
        values: Any = tuple.__class_getitem__((str, *types))
        return TypeAdapter(values)

    @property
    def columns(self) -> list[KeyedColumnElement[Any]]:
        return [self.column] if self.tie is None else [self.column, self.tie]


def _compare(
    column: ColumnElement[Any], value: BindParameter[Any], descending: bool, inclusive: bool
) -> ColumnElement[bool]:
    if descending:
        return column <= value if inclusive else column < value
    return column >= value if inclusive else column > value


def _nullable(column: KeyedColumnElement[Any]) -> bool:
    return bool(getattr(column, "nullable", True))
