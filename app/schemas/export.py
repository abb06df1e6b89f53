from pydantic import BaseModel, Field

from app.schemas.audit import AuditEventRead
from app.schemas.key import KeyRead
from app.schemas.review import ReviewRead  # sample
from app.schemas.session import SessionRead
from app.schemas.user import UserRead


class AccountExport(BaseModel):
    """What `PARTS` of app/services/export.py writes."""

    account: UserRead
    sessions: list[SessionRead]
    keys: list[KeyRead]
    audit_events: list[AuditEventRead] = Field(description="What has changed about the account")
    reviews: list[ReviewRead]  # sample
