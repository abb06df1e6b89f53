"""What is asked for by mail, and confirmed with the token of a mail."""

from typing import Annotated

from pydantic import BaseModel, Field

from app.schemas.user import Email, Password
from chassis.auth.password_rules import MAX_RAW
from chassis.schemas.fields import Body

Token = Annotated[
    str,
    Field(
        max_length=100,
        description="Of the link in a mail: what follows `#token=`",
        examples=["Zr1mBfIrYwWmLHb0Ks9aW9qDLqS3..."],
    ),
]


class MailAccepted(BaseModel):
    """The same whether or not there is such an account; the mail tells."""

    detail: str = Field(
        "If there is something to tell this address, a mail is on its way",
        examples=["If there is something to tell this address, a mail is on its way"],
    )


class MailRequest(Body):
    email: Email


class EmailChange(Body):
    email: Email
    current_password: str = Field(max_length=MAX_RAW)


class Verification(Body):
    token: Token
    password: str = Field(
        max_length=MAX_RAW,
        description="That of the registration, as anybody may register an address of others",
    )


class PasswordReset(Body):
    token: Token
    password: Password


class EmailConfirmation(Body):
    token: Token
