"""Accounts as administrators see and change them."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from app.schemas.user import Role, UserRead
from chassis.schemas.fields import OMITTED, Body
from chassis.schemas.page import After, Limit
from chassis.text.email_address import MAX_LENGTH, normalize_prefix

Prefix = Annotated[str, Field(max_length=MAX_LENGTH), AfterValidator(normalize_prefix)]


class UserAdminRead(UserRead):
    disabled_at: datetime | None = Field(description="Since when it cannot log in")


class UserAdminUpdate(Body):
    role: Role = OMITTED
    disabled: Annotated[
        bool, Field(description="true ends all sessions of the account, and refuses logins")
    ] = OMITTED


class UserQuery(BaseModel):
    """In the order of their addresses."""

    limit: Limit = 20
    after: After = None
    email_prefix: Annotated[
        Prefix | None, Field(description="What the address begins with", examples=["mary@"])
    ] = None
    role: Role | None = None
    disabled: bool | None = None
