from datetime import datetime
from enum import StrEnum
from typing import Annotated

from fastapi import Path
from pydantic import AfterValidator, BaseModel, Field, WithJsonSchema

from app.schemas.user import UserRead
from chassis.schemas import fields
from chassis.schemas.fields import Body, Text, Whole
from chassis.schemas.page import After, Limit

# Random numbers of 63 bits: as text, since JavaScript reads 53.
ID = {"type": "string", "pattern": "^[1-9][0-9]{0,18}$", "examples": ["6917529027641081856"]}
KeyId = Annotated[Whole[fields.Id], WithJsonSchema(ID), Path()]
KeyName = Annotated[str, Text(max_length=100), Field(examples=["Nightly export"])]
EXPIRY = "From then on it is no longer valid; null: never"


class KeyScope(StrEnum):
    """`read` allows GET, HEAD and OPTIONS; `write` allows all methods."""

    READ = "read"
    WRITE = "write"


Scopes = Annotated[
    list[KeyScope],
    Field(min_length=1, max_length=2, examples=[["read"]]),
    AfterValidator(lambda scopes: sorted(set(scopes))),
]


class KeyCreate(Body):
    name: KeyName
    scopes: Scopes
    expires_at: datetime | None = Field(None, description=EXPIRY)


class KeyRead(BaseModel):
    """An API key, without its secret."""

    id: Annotated[str, WithJsonSchema(ID)]
    name: KeyName
    start: str = Field(description="What the key begins with", examples=["orders_key_7yGHk2"])
    scopes: Scopes
    created_at: datetime
    expires_at: datetime | None = Field(description=EXPIRY)
    used_at: datetime | None = Field(
        description="When it was last used, to some minutes; null: not yet. Requests that need no "
        "account do not count"
    )


class KeyCreated(KeyRead):
    """The only response that has the secret."""

    key: str = Field(description="The secret: it cannot be shown again")


class KeyQuery(BaseModel):
    """The latest first."""

    limit: Limit = 20
    after: After = None


class KeyAccount(BaseModel):
    """The account that a request with an API key is one of."""

    key_id: int
    digest: str
    scopes: Scopes
    expires_at: datetime | None
    used_at: datetime | None
    user: UserRead
    is_use_due: bool = Field(False, exclude=True)  # whether its use is to be written
