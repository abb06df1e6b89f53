"""Signed URLs, each valid for one file and a limited time."""

import hmac
import time
from collections.abc import Iterable
from hashlib import sha256

from chassis.errors import Forbidden

NOT_SIGNED = "The signature of this URL is not valid"


class SignedUrls:
    """HMAC-SHA256 signatures: made with the first of the secrets, accepted with any of them."""

    def __init__(self, ttl: int, secrets: Iterable[str]) -> None:
        """`ttl`: minimum lifetime of a URL, s."""
        self.ttl = ttl
        self._keys = [sha256(b"signed urls" + secret.encode()).digest() for secret in secrets]

    def sign(self, key: str) -> str:
        """A URL that is valid for one to two `ttl`, and the same within each `ttl`, so that
        browsers can cache its file.
        """
        expires = str((int(time.time()) // self.ttl + 2) * self.ttl)
        signature = _signature(self._keys[0], key, expires)
        return f"/files/{key}?expires={expires}&signature={signature}"

    def check(self, key: str, expires: str, signature: str) -> int:
        """Remaining lifetime, s; raises Forbidden."""
        expected = [_signature(secret, key, expires).encode() for secret in self._keys]
        if not any(hmac.compare_digest(each, signature.encode()) for each in expected):
            raise Forbidden(NOT_SIGNED)
        left = int(expires) - int(time.time())
        if left <= 0:
            raise Forbidden("This URL has expired; request a new one")
        return left


def _signature(secret: bytes, key: str, expires: str) -> str:
    return hmac.digest(secret, f"{expires}\n{key}".encode(), "sha256").hex()
