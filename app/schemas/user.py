from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, WithJsonSchema

from chassis.auth import password_rules
from chassis.schemas.fields import OMITTED, Body, Text
from chassis.text import email_address


class Role(StrEnum):
    """Each may do what those before it may."""

    READER = "reader"
    EDITOR = "editor"
    ADMIN = "admin"

    def includes(self, other: "Role") -> bool:
        ranks = list(Role)
        return ranks.index(self) >= ranks.index(other)


Email = Annotated[
    str,
    AfterValidator(email_address.normalize_email),
    WithJsonSchema(
        {
            "type": "string",
            "format": "email",
            "maxLength": email_address.MAX_LENGTH,
            "examples": ["mary@example.com"],
        }
    ),
]
Name = Annotated[str, Text(max_length=100), Field(examples=["Mary Shelley"])]
Password = Annotated[
    str,
    AfterValidator(password_rules.check_new_password),
    WithJsonSchema(
        {
            "type": "string",
            "format": "password",
            "description": (
                "At least 12 characters, unless PASSWORDS_MIN_LENGTH is set; not a common one "
                f"nor the e-mail address; at most {password_rules.MAX_BYTES} bytes of UTF-8; "
                "never trimmed"
            ),
        }
    ),
]


class UserCreate(Body):
    email: Email
    name: Name
    password: Password


class UserUpdate(Body):
    name: Name = OMITTED
    password: Password = OMITTED
    current_password: str = Field(
        "",
        max_length=password_rules.MAX_RAW,
        description="Needed to change the password, which ends other sessions and refresh tokens",
    )


class UserDelete(Body):
    current_password: str = Field(
        max_length=password_rules.MAX_RAW, examples=["a sentence that nobody else says"]
    )


class UserRead(BaseModel):
    id: int
    email: str = Field(examples=["mary@example.com"])
    name: str = Field(examples=["Mary Shelley"])
    role: Role
    totp: bool = Field(description="Whether its logins need a second factor")
    created_at: datetime


class Account(BaseModel):
    session_id: int
    user: UserRead
