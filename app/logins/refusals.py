"""Why a login or a refresh is refused, or tried again, within its service."""

from typing import Literal


class PasswordChanged(Exception):
    """The hash that was verified is no longer that of the account."""


class TokenRefused(Exception):
    """The refresh token ends its session: it has expired, or it was used by two clients, of which
    one may have stolen it.
    """

    def __init__(self, reason: Literal["expired", "reused"]) -> None:
        self.reason = reason
