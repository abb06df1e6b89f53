from pydantic import BaseModel, Field

from app.schemas.accounts.audit import AuditEventRead
from app.schemas.accounts.key import KeyRead
from app.schemas.accounts.session import SessionRead
from app.schemas.review import ReviewRead  # sample
from app.schemas.user import UserRead


# What `PARTS` of app/services/accounts/export.py writes.
class AccountExport(BaseModel):
    """All that the service has of an account."""

    account: UserRead
    sessions: list[SessionRead]
    keys: list[KeyRead]
    audit_events: list[AuditEventRead] = Field(description="What has changed about the account")
    reviews: list[ReviewRead]  # sample
