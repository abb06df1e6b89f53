"""A page of a list and the keyset cursor that leads to the next one."""

import base64
from typing import Annotated, Any, Generic, TypeVar

import orjson
from pydantic import BaseModel, Field

from app.schemas.base import Whole

T = TypeVar("T")

MAX_LIMIT = 100
Limit = Whole[Annotated[int, Field(ge=1, le=MAX_LIMIT, description="Items on a page")]]
After = Annotated[
    str | None, Field(max_length=4000, description="The `next` of the page before this one")
]


class Page(BaseModel, Generic[T]):
    items: list[T]
    next: str | None = Field(
        description="Cursor of the next page; null on the last one", examples=["WyJpZCIsMjBd"]
    )


def encode_cursor(*place: str | float | None) -> str:
    """`place` as an opaque string for a URL."""
    return base64.urlsafe_b64encode(orjson.dumps(place)).decode().rstrip("=")


def decode_cursor(cursor: str) -> list[Any]:
    """The place that was encoded, or ValueError."""
    place = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    if not isinstance(place, list):
        raise ValueError(cursor)
    return place
