"""One-time passwords of authenticator apps (TOTP, RFC 6238), and recovery codes."""

import hmac
import secrets
from base64 import b32encode, urlsafe_b64encode
from collections.abc import Iterable
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

# What all apps understand: many ignore other values in the URI, and show wrong codes.
DIGITS = 6
STEP = 30  # s
SECRET = 20  # bytes, as RFC 4226 recommends

WINDOW = 1  # steps before and after the present one that are accepted, as clocks differ
RECOVERY = 10  # bytes of a recovery code: 80 bits
GROUP = 4  # characters between its hyphens
MAX_LENGTH = 40  # of what is typed, spaces included


class NewSecret(NamedTuple):
    secret: str  # in base 32
    uri: str  # of the QR code that apps read
    encrypted: str


class TotpSecrets:
    """Makes secrets, which are encrypted at rest, and recognises their codes.

    The keys derive from TOKENS_KEY, which encrypts, and TOKENS_OLD_KEYS: a copy of the database
    alone gives nobody a second factor.
    """

    def __init__(self, issuer: str, keys: Iterable[str]) -> None:
        self.issuer = issuer
        digests = (sha256(b"secrets of TOTP" + key.encode()).digest() for key in keys)
        self._cipher = MultiFernet([Fernet(urlsafe_b64encode(digest)) for digest in digests])

    def make(self, email: str) -> NewSecret:
        secret = secrets.token_bytes(SECRET)
        # A space as %20: some apps show a + as it is.
        uri = _totp(secret).get_provisioning_uri(email, self.issuer).replace("+", "%20")
        encrypted = self._cipher.encrypt(secret).decode()
        return NewSecret(b32encode(secret).decode(), uri, encrypted)

    def step_of(self, encrypted: str, code: str, time: datetime) -> int | None:
        """The time step of a code that is valid at `time`; None: it is not. Raises Unreadable."""
        totp = _totp(self._decrypt(encrypted))
        present = int(time.timestamp()) // STEP
        matching = None
        for step in range(present - WINDOW, present + WINDOW + 1):
            if hmac.compare_digest(totp.generate(step * STEP), code.encode()):
                matching = step
        return matching

    def renew(self, encrypted: str) -> str:
        """The same secret, encrypted with the newest key. Raises Unreadable."""
        return self._cipher.encrypt(self._decrypt(encrypted)).decode()

    def _decrypt(self, encrypted: str) -> bytes:
        try:
            return self._cipher.decrypt(encrypted)
        except InvalidToken:
            raise Unreadable from None


class Unreadable(Exception):
    """A secret was encrypted with a key that is neither TOKENS_KEY nor in TOKENS_OLD_KEYS."""


def make_recovery_code() -> str:
    text = b32encode(secrets.token_bytes(RECOVERY)).decode()
    return "-".join(text[start : start + GROUP] for start in range(0, len(text), GROUP))


def normalize_otp(text: str) -> str:
    """As codes are compared: apps and people write spaces, hyphens and small letters."""
    return "".join(text.replace("-", "").split()).upper()


def is_totp(code: str) -> bool:
    """Whether a normalized code is one of an app; else it is meant as a recovery code."""
    return len(code) == DIGITS and code.isascii() and code.isdecimal()


def digest_of(user_id: int, recovery_code: str) -> str:
    """Of a normalized one. At once: 80 random bits cannot be guessed, however fast a hash is."""
    return sha256(f"{user_id} {recovery_code}".encode()).hexdigest()


def _totp(secret: bytes) -> TOTP:
    return TOTP(secret, DIGITS, SHA1(), STEP)  # noqa: S303 - as an HMAC, and what apps know
