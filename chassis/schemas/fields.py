"""Types of request fields: strict, without coercion, bounded by what databases store."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from chassis.text.normal_form import clean_line, clean_lines

MAX_ID = 2**63 - 1
Id = Annotated[int, Field(ge=1, le=MAX_ID, examples=[7])]
Money = Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=2, examples=["9.90"])]

# By type of pydantic-core schema: what databases can store. Datetimes need an offset from UTC.
LIMITS: dict[object, dict[str, object]] = {
    "datetime": {"tz_constraint": "aware"},
    "time": {"tz_constraint": "naive"},
    "int": {"ge": -MAX_ID, "le": MAX_ID},
}


def _limit(schema: Any) -> None:
    """Add LIMITS to the types in a pydantic-core schema, unless they have their own."""
    if isinstance(schema, dict):
        kind = schema.get("type")
        if isinstance(kind, str):  # else these are the fields of a model, one of them called "type"
            schema |= LIMITS.get(kind, {}) | schema
        for key in schema.keys() - {"metadata", "default"}:
            _limit(schema[key])
    elif isinstance(schema, list | tuple):
        for inner in schema:
            _limit(inner)


class Body(BaseModel):
    """A request body: no coercion (`false` is not a number), no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        _limit(schema)
        return schema


# Text that is longer by this factor is refused before it is normalised.
MAX_SHRINKING = 4


@dataclass(frozen=True)
class Text:
    """Marks a `str` as text: `Annotated[str, Text(max_length=300)]`.

    See chassis/text/normal_form.py; the limits, in code points, are those of the normal form.
    """

    max_length: int
    min_length: int | None = 1
    multiline: bool = False

    def __get_pydantic_core_schema__(self, *_: Any) -> CoreSchema:
        limits = core_schema.str_schema(min_length=self.min_length, max_length=self.max_length)
        return core_schema.no_info_before_validator_function(self._normalise, limits)

    def _normalise(self, value: object) -> object:
        if not isinstance(value, str):
            return value
        if len(value) > MAX_SHRINKING * self.max_length:
            raise PydanticKnownError("string_too_long", {"max_length": self.max_length})
        return clean_lines(value) if self.multiline else clean_line(value)


def _plain(value: object) -> object:
    if isinstance(value, str) and not _PLAIN.fullmatch(value):
        raise ValueError("is not a whole number in its shortest form")
    return value


_PLAIN = re.compile(r"-?[1-9][0-9]*|0")
Number = TypeVar("Number", bound=int)
# In a path or a query: `7`, but not `007`, `+7`, `7.0` or `1_0`, so that a resource has one URL.
# Bounds go into the brackets: `Whole[Annotated[int, Field(ge=1)]]`. Outside, Pydantic checks
# them after this validator, in Python, and OpenAPI gets no `minimum` and `maximum`.
Whole = Annotated[Number, BeforeValidator(_plain)]


def _without_default(schema: dict[str, Any]) -> None:
    del schema["default"]


# The default of a PATCH field: it may be omitted, which is not the same as null.
# Services use `model_fields_set`, so the default itself is never used.
OMITTED: Any = Field(default=None, json_schema_extra=_without_default)


def differing(current: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `changes`, by a PATCH, that differ from `current`, a locked row."""
    return {name: value for name, value in changes.items() if getattr(current, name) != value}
