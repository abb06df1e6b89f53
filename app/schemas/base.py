"""How bodies are read: no coercion, no unknown fields."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


class Body(BaseModel):
    """A request body: `false` is no number, and a misspelt field is an error."""

    model_config = ConfigDict(extra="forbid", strict=True)


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds characters that cannot be printed, such as line breaks")
    return text


Text = Annotated[str, AfterValidator(_printable)]


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
