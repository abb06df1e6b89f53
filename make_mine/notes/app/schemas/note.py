from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from chassis.schemas.fields import OMITTED, Body, Text
from chassis.schemas.page import After, Limit

NoteSort = Literal[
    "id",
    "-id",
]
NoteTitle = Annotated[str, Text(max_length=200), Field(examples=["b"])]
NoteText = Annotated[str, Text(max_length=5000, multiline=True), Field(examples=["Second"])]


class NoteRead(BaseModel):
    id: int = Field(examples=[7])
    title: str
    text: str
    version: int
    created_at: datetime
    updated_at: datetime


class NoteCreate(Body):
    title: NoteTitle
    text: NoteText


class NoteUpdate(Body):
    """Only what is sent changes."""

    title: NoteTitle = OMITTED
    text: NoteText = OMITTED


class NoteQuery(BaseModel):
    limit: Limit = 20
    after: After = None
    sort: NoteSort = "id"
