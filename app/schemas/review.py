from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from app.schemas.base import OMITTED, Body
from app.schemas.page import After, Limit


def _readable(text: str) -> str:
    if not all(character.isprintable() or character in "\n\t" for character in text):
        raise ValueError("holds characters that cannot be printed")
    return text


Rating = Annotated[int, Field(ge=1, le=5, examples=[5])]
ReviewText = Annotated[
    str,
    Field(min_length=1, max_length=5000, examples=["I read it in one night."]),
    AfterValidator(_readable),
]


class Reviewer(BaseModel):
    id: int = Field(examples=[7])
    name: str = Field(examples=["Mary Shelley"])


class ReviewRead(BaseModel):
    id: int
    book_id: int
    user: Reviewer
    rating: int = Field(examples=[5])
    text: str = Field(examples=["I read it in one night."])
    created_at: datetime
    updated_at: datetime


class ReviewCreate(Body):
    rating: Rating
    text: ReviewText


class ReviewUpdate(Body):
    rating: Rating = OMITTED
    text: ReviewText = OMITTED


class ReviewQuery(BaseModel):
    """The latest first."""

    limit: Limit = 20
    after: After = None
