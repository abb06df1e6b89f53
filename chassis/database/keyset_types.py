"""Types of the values in a keyset cursor: those of the columns, within their bounds."""

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
from pydantic import AfterValidator, AwareDatetime, Field
from sqlalchemy.sql.elements import KeyedColumnElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from chassis.database.columns import UTCDateTime
from chassis.schemas.page import MAX_CURSOR

# A code point has up to four bytes, six characters of base64; 250 are for everything else.
MAX_TEXT = (MAX_CURSOR - 250) * 3 // 16
PLAIN = (bool, date, datetime, time, timedelta, UUID)


def cursor_type(column: KeyedColumnElement[Any]) -> Any:
    """A type for pydantic; TypeError if lists cannot be sorted by this column."""
    try:
        type_ = _type_of(column.type)
    except TypeError as error:
        raise TypeError(f"Lists cannot be sorted by {column}: {error}") from None
    return type_ | None if getattr(column, "nullable", True) else type_


def _type_of(type_: TypeEngine[Any]) -> Any:
    if isinstance(type_, UTCDateTime):
        return Annotated[AwareDatetime, AfterValidator(_utc)]
    if isinstance(type_, TypeDecorator) and type_.python_type is object:
        return _type_of(type_.impl_instance)
    if isinstance(type_, sa.Enum) and type_.native_enum:
        raise TypeError("MariaDB sorts an ENUM by position, SQLite by name; set native_enum=False")
    python_type = type_.python_type
    if python_type is int:
        return _whole_number(type_)
    if python_type is float and not _is_exact(type_):
        raise TypeError("MariaDB shows fewer digits of a FLOAT than it compares; use Double")
    if python_type is Decimal:
        return Annotated[Decimal, Field(max_digits=65, decimal_places=38)]  # as MariaDB
    if python_type is str and not isinstance(type_, sa.Uuid):
        length = getattr(type_, "length", None)
        if length is None or length > MAX_TEXT:
            raise TypeError(f"its text may have more than {MAX_TEXT} characters")
    elif not (python_type in (float, str, *PLAIN) or issubclass(python_type, Enum)):
        raise TypeError(f"its type is {type_!r}")
    return python_type


def _utc(value: datetime) -> datetime:
    if value.utcoffset():
        raise ValueError("is not UTC")
    return value


def _whole_number(type_: TypeEngine[Any]) -> Any:
    bits = 64 if isinstance(type_, sa.BigInteger) else 32
    if isinstance(type_, sa.SmallInteger):
        bits = 16
    if getattr(type_, "unsigned", False):
        return Annotated[int, Field(ge=0, lt=2**bits)]
    return Annotated[int, Field(ge=-(2 ** (bits - 1)), lt=2 ** (bits - 1))]


def _is_exact(type_: TypeEngine[Any]) -> bool:
    """Whether a float is compared with the digits that are shown."""
    if isinstance(type_, sa.Float):
        return isinstance(type_, sa.Double) or (type_.precision or 0) > 24
    return isinstance(type_, sa.Numeric) and (type_.precision or 0) <= 15
