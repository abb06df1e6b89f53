from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, EmailStr, Field

from app.schemas.base import OMITTED, Body, Text


class Role(StrEnum):
    """Each may do what those before it may."""

    READER = "reader"
    EDITOR = "editor"
    ADMIN = "admin"

    def includes(self, other: "Role") -> bool:
        ranks = list(Role)
        return ranks.index(self) >= ranks.index(other)


Email = Annotated[
    EmailStr, Field(max_length=254, examples=["mary@example.com"]), AfterValidator(str.lower)
]
Name = Annotated[str, Text(max_length=100), Field(examples=["Mary Shelley"])]
# A longer one would cost more to hash, and is no safer.
Password = Annotated[str, Field(min_length=8, max_length=128)]


class UserCreate(Body):
    email: Email
    name: Name
    password: Password


class UserUpdate(Body):
    name: Name = OMITTED
    password: Password = OMITTED
    current_password: str = Field(
        "", max_length=128, description="Needed to change the password, which ends other sessions"
    )


class UserRead(BaseModel):
    id: int
    email: str = Field(examples=["mary@example.com"])
    name: str = Field(examples=["Mary Shelley"])
    role: Role
    created_at: datetime


class Account(BaseModel):
    """Who asks, and in which session."""

    session_id: int
    user: UserRead
