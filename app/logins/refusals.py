"""Why a login or a refresh is refused, or tried again, within its service."""

from typing import Literal

from chassis.errors import Unauthorized

REFUSED_OTP = "The one-time password is wrong, has expired or was used already"


class PasswordChanged(Exception):
    """The hash that was verified is no longer that of the account."""


class TokenRefused(Exception):
    """The refresh token ends its session: it has expired, or it was used by two clients, of which
    one may have stolen it.
    """

    def __init__(self, reason: Literal["expired", "reused"]) -> None:
        self.reason = reason


class OtpRequired(Unauthorized):
    """The password was right, and the account has a second factor."""

    problem = {
        "type": "urn:problem-type:otp-required",
        "title": "One-time password required",
    }

    def __init__(self) -> None:
        super().__init__("Send the code of the authenticator app, or a recovery code, as `otp`")


class OtpRefused(Unauthorized):
    """The password was right, the second factor was not."""

    problem = {
        "type": "urn:problem-type:otp-refused",
        "title": "One-time password refused",
    }

    def __init__(self) -> None:
        super().__init__(REFUSED_OTP)
