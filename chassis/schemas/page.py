"""Pages of a list, and their keyset cursors."""

import base64
from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, Field

from chassis.schemas.fields import Whole

T = TypeVar("T")

MAX_LIMIT = 100
MAX_CURSOR = 4000  # characters; URLs of up to 8 kB pass all proxies
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
    return base64.urlsafe_b64encode(json).decode().rstrip("=")


def decode_cursor(cursor: str) -> bytes:
    """The reverse; raises ValueError if it is not base64."""
    return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
