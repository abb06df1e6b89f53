"""A page of a list and the keyset cursor that leads to the next one."""

import base64
from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, Field

from app.schemas.base import Whole

T = TypeVar("T")

MAX_LIMIT = 100
MAX_CURSOR = 4000  # a URL of 8 kB passes everywhere
Limit = Whole[Annotated[int, Field(ge=1, le=MAX_LIMIT, description="Items on a page")]]
After = Annotated[
    str | None, Field(max_length=MAX_CURSOR, description="The `next` of the page before this one")
]


class Page(BaseModel, Generic[T]):
    items: list[T]
    next: str | None = Field(
        description="Cursor of the next page; null on the last one", examples=["WyJpZCIsMjBd"]
    )


def encode_cursor(json: bytes) -> str:
    """JSON as an opaque string for a URL."""
    return base64.urlsafe_b64encode(json).decode().rstrip("=")


def decode_cursor(cursor: str) -> bytes:
    """What was encoded; ValueError if this is no base64."""
    return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
