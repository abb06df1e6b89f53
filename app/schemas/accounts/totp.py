"""The second factor of an account, and its proofs."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from chassis.auth.password_rules import MAX_RAW
from chassis.auth.totp import MAX_LENGTH, normalize_otp
from chassis.schemas.fields import Body

Otp = Annotated[
    str, Field(max_length=MAX_LENGTH, examples=["287082"]), AfterValidator(normalize_otp)
]
Password = Annotated[str, Field(max_length=MAX_RAW, examples=["a sentence that nobody else says"])]
RecoveryCode = Annotated[str, Field(examples=["MZXW-6YTB-OI7Q-4TSB"])]


class TotpEnable(Body):
    current_password: Password
    otp: Otp | None = Field(
        None, description="A code of the app that has the secret; without it: make a secret"
    )


class TotpPending(BaseModel):
    """A secret, which is in force once a code of it is sent; it replaces one that is not."""

    secret: str = Field(
        description="For apps that read no QR codes, in base 32",
        examples=["JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"],
    )
    uri: str = Field(
        description="The content of a QR code",
        examples=["otpauth://totp/Orders:mary%40example.com?secret=JBSWY3DPEHPK3PXP&..."],
    )


class TotpEnabled(BaseModel):
    """From now on logins need a second factor; only this response has the recovery codes."""

    recovery_codes: list[RecoveryCode] = Field(
        description="Each is good once, in place of a code of the app"
    )


class TotpDisable(Body):
    current_password: Password
    otp: Otp = Field(description="A code of the app, or a recovery code")
