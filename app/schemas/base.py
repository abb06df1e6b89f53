"""How bodies are read: no coercion, no unknown fields."""

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from app.text import clean_line, clean_lines


class Body(BaseModel):
    """A request body: `false` is no number, and a misspelt field is an error."""

    model_config = ConfigDict(extra="forbid", strict=True)


# Longer text is refused unread; what normalising takes away is a few spaces and marks.
MAX_SHRINKING = 4


@dataclass(frozen=True)
class Text:
    """Marks a `str` as text: `Annotated[str, Text(max_length=300)]`. See app/text.py.

    The limits, in code points, are those of the normal form.
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
        raise ValueError("is not written as a plain whole number")
    return value


_PLAIN = re.compile(r"-?[1-9][0-9]*|0")
# Of a path or a query: `7`, but not `007`, `+7`, `7.0` or `1_0`. One thing has one URL.
Whole = Annotated[int, BeforeValidator(_plain)]


def _without_default(schema: dict[str, Any]) -> None:
    del schema["default"]


# The default of a PATCH field: it may be left out, which is not the same as null.
# Services look at `model_fields_set`, so the default itself is never used.
OMITTED: Any = Field(default=None, json_schema_extra=_without_default)
