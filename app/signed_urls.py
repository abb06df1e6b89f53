"""URLs that are good for one file and for a while."""

import hmac
import time
from hashlib import sha256

from app.errors import Forbidden
from app.settings import Settings

NOT_SIGNED = "This is not an address that was given out here"


class SignedUrls:
    """Signed with the newest of the keys of tokens, read with any."""

    def __init__(self, settings: Settings) -> None:
        self.ttl = settings.files.url_ttl
        keys = [key.encode() for key in settings.tokens.keys]
        self._keys = [sha256(b"signed urls" + key).digest() for key in keys]

    def sign(self, key: str) -> str:
        """Good for at least FILES_URL_TTL, at most twice that: as long, it is always the same URL,
        so that browsers find what they have.
        """
        expires = str((int(time.time()) // self.ttl + 2) * self.ttl)
        signature = _signature(self._keys[0], key, expires)
        return f"/files/{key}?expires={expires}&signature={signature}"

    def check(self, key: str, expires: str, signature: str) -> int:
        """How long it is still good, s; raises Forbidden."""
        expected = [_signature(secret, key, expires).encode() for secret in self._keys]
        if not any(hmac.compare_digest(each, signature.encode()) for each in expected):
            raise Forbidden(NOT_SIGNED)
        left = int(expires) - int(time.time())
        if left <= 0:
            raise Forbidden("This address has expired; ask again for a new one")
        return left


def _signature(secret: bytes, key: str, expires: str) -> str:
    return hmac.digest(secret, f"{expires}\n{key}".encode(), "sha256").hex()
