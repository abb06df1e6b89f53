from datetime import datetime
from typing import Annotated

from fastapi import Path
from pydantic import BaseModel, Field, WithJsonSchema

from chassis.schemas import fields
from chassis.schemas.fields import Whole
from chassis.schemas.page import After, Limit

# Random numbers of 63 bits: as text, since JavaScript reads 53.
ID = {"type": "string", "pattern": "^[1-9][0-9]{0,18}$", "examples": ["6917529027641081856"]}
SessionId = Annotated[Whole[fields.Id], WithJsonSchema(ID), Path()]


class SessionRead(BaseModel):
    """A login."""

    id: Annotated[str, WithJsonSchema(ID)]
    user_agent: str | None = Field(
        description="What the client of the login called itself", examples=["Firefox/149.0"]
    )
    address: str | None = Field(description="The address of that client", examples=["198.51.100.7"])
    created_at: datetime
    used_at: datetime = Field(description="When its tokens were last refreshed, or the login")
    is_current: bool = Field(description="Whether it is that of this request")


class SessionQuery(BaseModel):
    """The latest login first."""

    limit: Limit = 20
    after: After = None
