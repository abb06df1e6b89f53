from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.base import OMITTED, Body, Text
from app.schemas.page import After, Limit

AuthorName = Annotated[str, Text(max_length=300), Field(examples=["Ursula K. Le Guin"])]


class AuthorRef(BaseModel):
    """An author as part of a book."""

    id: int = Field(examples=[12])
    name: str = Field(examples=["Mary Shelley"])


class AuthorRead(BaseModel):
    id: int
    name: str
    version: int
    created_at: datetime
    updated_at: datetime

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": 12,
                    "name": "Mary Shelley",
                    "version": 1,
                    "created_at": "2026-03-01T09:30:00Z",
                    "updated_at": "2026-03-01T09:30:00Z",
                }
            ]
        }
    )


class AuthorCreate(Body):
    name: AuthorName


class AuthorUpdate(Body):
    name: AuthorName = OMITTED


class AuthorQuery(BaseModel):
    limit: Limit = 20
    after: After = None
    sort: Literal["id", "name"] = "id"
