"""Access tokens: signed, short-lived, and good for as long as the session they belong to."""

import time
from collections.abc import Callable
from hashlib import sha256
from typing import Any, NamedTuple, TypeVar

import jwt
from starlette.types import Scope

from app.errors import Unauthorized
from app.header_fields import single_field
from app.settings import TokenSettings

ALGORITHM = "HS256"
TYPE = "at+jwt"  # RFC 9068: no other token of ours, should there be one, is good for this
F = TypeVar("F", bound=Callable[..., Any])
CLAIMS = ("sub", "sid", "aud", "iss", "iat", "exp")
MAX_ID = 2**63 - 1  # of a row
LEEWAY = 5  # s; what the clocks of two hosts may differ by


class Claims(NamedTuple):
    user_id: int
    session_id: int


class AccessTokens:
    """JSON web tokens (RFC 7519, RFC 9068), signed by the newest key, read with any."""

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
        """What it claims; raises Unauthorized unless it is one of ours that still counts."""
        try:
            header = jwt.get_unverified_header(token)
            if header.get("typ") != TYPE or header.get("kid") not in self._keys:
                raise jwt.InvalidTokenError("It is of another type, or nobody knows its key")
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
        raise ValueError("They are not written as numbers of rows")
    if not (0 < user_id <= MAX_ID and 0 < sid <= MAX_ID):
        raise ValueError("The database can have no such row")
    return Claims(user_id, sid)


def _name(key: str) -> str:
    """The `kid` of a key: the same in every process, and it tells nothing."""
    return sha256(key.encode()).hexdigest()[:8]


def bearer(scope: Scope) -> str | None:
    """The token of the `Authorization` header (RFC 6750); raises Unauthorized of two."""
    value = authorization(scope)
    return value[7:].strip() if value is not None and value[:7].lower() == "bearer " else None


def authorization(scope: Scope) -> str | None:
    """The header; raises Unauthorized where it was given twice: whose word counts is not clear."""
    try:
        return single_field(scope, b"authorization")
    except ValueError as error:
        raise Unauthorized(str(error), invalid=True) from None


def needs_token(dependency: F) -> F:
    """Mark a dependency that refuses requests without a token: before the body is read, too."""
    dependency.needs_token = True  # type: ignore[attr-defined]
    return dependency


def require_claims(scope: Scope) -> Claims:
    claims = claims_of(scope)
    if claims is None:
        raise Unauthorized("This needs an access token; POST /v1/tokens gives one")
    return claims


def claims_of(scope: Scope) -> Claims | None:
    """Whose request it is, read once; None where it has no token. Raises Unauthorized."""
    state = scope["state"]
    if "claims" not in state:
        token = bearer(scope)
        tokens: AccessTokens = state["access_tokens"]
        state["claims"] = None if token is None else tokens.read(token)
    claims: Claims | None = state["claims"]
    return claims
