from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from chassis.schemas.fields import OMITTED, Body, Text
from chassis.schemas.page import After, Limit

AuthorName = Annotated[str, Text(max_length=300), Field(examples=["Ursula K. Le Guin"])]


class AuthorRef(BaseModel):
    """An author as part of a book."""

    id: int = Field(examples=[12])
    name: str = Field(examples=["Mary Shelley"])


class AuthorRead(AuthorRef):
    version: int = Field(examples=[1])
    created_at: datetime
    updated_at: datetime


class AuthorCreate(Body):
    name: AuthorName


class AuthorUpdate(Body):
    name: AuthorName = OMITTED


class AuthorQuery(BaseModel):
    limit: Limit = 20
    after: After = None
    sort: Literal["id", "name"] = "id"
