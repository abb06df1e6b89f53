"""Access tokens: signed, short-lived, and valid while their session exists."""

import time
from hashlib import sha256
from typing import Any, NamedTuple

import jwt

from chassis.auth.settings import TokenSettings
from chassis.errors import Unauthorized
from chassis.schemas.fields import MAX_ID

ALGORITHM = "HS256"
TYPE = "at+jwt"  # RFC 9068: a token for another purpose is refused
CLAIMS = ("sub", "sid", "aud", "iss", "iat", "exp")
LEEWAY = 5  # s; how far the clocks of two hosts may differ


class Claims(NamedTuple):
    user_id: int
    session_id: int


class AccessTokens:
    """JSON web tokens (RFC 7519, RFC 9068), signed with the newest key, verified with any."""

    def __init__(self, settings: TokenSettings) -> None:
        self.ttl = settings.access_ttl
        self.name = settings.audience
        self._keys = {_name(key): key for key in settings.keys}
        self._newest = next(iter(self._keys))

    def issue(self, claims: Claims) -> str:
        now = int(time.time())
        content = {
            "sub": str(claims.user_id),
            "sid": claims.session_id,
            "aud": self.name,
            "iss": self.name,
            "iat": now,
            "exp": now + self.ttl,
        }
        headers = {"kid": self._newest, "typ": TYPE}
        return jwt.encode(content, self._keys[self._newest], ALGORITHM, headers)

    def read(self, token: str) -> Claims:
        """The claims of a valid token; raises Unauthorized."""
        try:
            header = jwt.get_unverified_header(token)
            if header.get("typ") != TYPE or header.get("kid") not in self._keys:
                raise jwt.InvalidTokenError("Another type, or an unknown key")
            content = jwt.decode(
                token,
                self._keys[header["kid"]],
                [ALGORITHM],
                {"require": [*CLAIMS]},
                audience=self.name,
                issuer=self.name,
                leeway=LEEWAY,
            )
            return _claims(content["sub"], content["sid"])
        except jwt.ExpiredSignatureError:
            raise Unauthorized("The access token has expired; refresh it", invalid=True) from None
        except (jwt.InvalidTokenError, ValueError, RecursionError):
            raise Unauthorized("The access token is not valid; log in", invalid=True) from None


def _claims(sub: str, sid: Any) -> Claims:
    """Raises ValueError unless both are as `issue` writes them: no bool, no fraction, no `+7`."""
    user_id = int(sub)
    if str(user_id) != sub or type(sid) is not int:
        raise ValueError("Not written as ids")
    if not (0 < user_id <= MAX_ID and 0 < sid <= MAX_ID):
        raise ValueError("Out of range")
    return Claims(user_id, sid)


def _name(key: str) -> str:
    """The `kid` of a key: the same in every process; the key cannot be derived from it."""
    return sha256(key.encode()).hexdigest()[:8]
