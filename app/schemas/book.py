from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field

from app.sample.isbn import parse_isbn
from app.schemas.author import AuthorRef
from chassis.schemas.fields import OMITTED, Body, Id, Text, Whole
from chassis.schemas.page import After, Limit

MAX_AUTHORS = 100
BookSort = Literal["id", "-average_rating", "-ratings_count", "title"]

Title = Annotated[str, Text(max_length=500), Field(examples=["Frankenstein"])]
ISBN13 = Annotated[
    str,
    Field(
        max_length=32,
        examples=["978-0-14-143947-1"],
        description="An ISBN-13 or ISBN-10; hyphens and spaces may be left out",
    ),
    AfterValidator(parse_isbn),
]
Year = Annotated[
    int,
    Field(ge=-4000, le=9999, examples=[1818], description="Negative before Christ"),
]
QueryYear = Whole[Annotated[int, Field(ge=-4000, le=9999)]]
Language = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$",
        max_length=35,
        examples=["eng"],
        description="A language code, such as `eng` or `en-US`",
    ),
]
AuthorIds = Annotated[list[Id], Field(min_length=1, max_length=MAX_AUTHORS, examples=[[12]])]


class BookRead(BaseModel):
    id: int = Field(examples=[7])
    title: str = Field(examples=["Frankenstein"])
    isbn13: str | None = Field(examples=["9780141439471"])
    published_year: int | None = Field(examples=[1818])
    language: str | None = Field(examples=["eng"])
    authors: list[AuthorRef]
    ratings_count: int = Field(examples=[1204])
    average_rating: float = Field(description="1 to 5; 0 without ratings", examples=[4.12])
    version: int = Field(examples=[1])
    created_at: datetime
    updated_at: datetime


class BookCreate(Body):
    title: Title
    isbn13: ISBN13 | None = None
    published_year: Year | None = None
    language: Language | None = None
    author_ids: AuthorIds


class BookUpdate(Body):
    """Only what is sent changes; null clears what may be empty."""

    title: Title = OMITTED
    isbn13: ISBN13 | None = OMITTED
    published_year: Year | None = OMITTED
    language: Language | None = OMITTED
    author_ids: AuthorIds = OMITTED


class BookQuery(BaseModel):
    limit: Limit = 20
    after: After = None
    q: Annotated[
        Annotated[str, Text(max_length=200, min_length=None)] | None,
        Field(description="Words of the title or of the authors' names"),
    ] = None
    author_id: Whole[Id] | None = None
    language: Language | None = None
    year_from: QueryYear | None = None
    year_to: QueryYear | None = None
    sort: BookSort = "id"
