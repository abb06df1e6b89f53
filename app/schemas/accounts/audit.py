import re
from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, BeforeValidator, Field

from chassis.schemas.fields import Id, Whole
from chassis.schemas.page import After, Limit


def _written_out(value: object) -> object:
    if isinstance(value, str) and not re.match(r"\d{4}-", value):
        raise ValueError("is not a time such as 2026-03-01T09:30:00Z")  # a number of seconds, say
    return value


class AuditEventRead(BaseModel):
    id: int
    event: str = Field(examples=["login"])
    account_id: int = Field(description="The account that it is about, even if it is deleted")
    actor_id: int | None = Field(description="The account that did it; null: a command")
    session_id: str | None = Field(examples=["6917529027641081856"])
    client: str | None = Field(examples=["198.51.100.7"])
    request_id: str | None
    details: dict[str, str]
    created_at: datetime


class AuditQuery(BaseModel):
    """The latest first."""

    limit: Limit = 20
    after: After = None
    account_id: Whole[Id] | None = None
    since: Annotated[AwareDatetime, BeforeValidator(_written_out)] | None = None
