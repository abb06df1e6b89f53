from datetime import datetime

from pydantic import AwareDatetime, BaseModel, Field

from chassis.schemas.fields import Id, Whole
from chassis.schemas.page import After, Limit


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
    since: AwareDatetime | None = None
