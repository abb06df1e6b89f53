from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from chassis.schemas.fields import OMITTED, Body, Text
from chassis.schemas.page import After, Limit

Rating = Annotated[int, Field(ge=1, le=5, examples=[5])]
ReviewText = Annotated[
    str, Text(max_length=5000, multiline=True), Field(examples=["I read it in one night."])
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
