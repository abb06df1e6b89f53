"""Access tokens: signed, short-lived, and valid while their session exists."""

import time
from collections.abc import Callable
from hashlib import sha256
from typing import Any, NamedTuple, NotRequired, TypedDict, TypeVar

import jwt
from starlette.types import Scope

from chassis.auth.settings import TokenSettings
from chassis.errors import Unauthorized
from chassis.header_fields import single_field
from chassis.schemas.fields import MAX_ID

ALGORITHM = "HS256"
TYPE = "at+jwt"  # RFC 9068: a token for another purpose is refused
F = TypeVar("F", bound=Callable[..., Any])
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


class AuthState(TypedDict):
    """See chassis/http/request_state.py; the claims are of one request, once they were read."""

    access_tokens: AccessTokens
    claims: NotRequired[Claims | None]
    valid_claims: NotRequired[Claims | None]


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


def authorization(scope: Scope) -> str | None:
    """The header; raises Unauthorized if it was sent twice, which is ambiguous."""
    try:
        return single_field(scope, b"authorization")
    except ValueError as error:
        raise Unauthorized(str(error), invalid=True) from None


def needs_token(dependency: F) -> F:
    """Mark a dependency that needs a token: without one the body is not read."""
    dependency.needs_token = True  # type: ignore[attr-defined]
    return dependency


def require_claims(scope: Scope) -> Claims:
    claims = claims_of(scope)
    if claims is None:
        raise Unauthorized("This needs an access token, from POST /v1/tokens")
    return claims


def claims_of(scope: Scope) -> Claims | None:
    """Of the bearer token (RFC 6750), read once; None without one. Raises Unauthorized."""
    state: AuthState = scope["state"]
    if "claims" not in state:
        value = authorization(scope) or ""
        is_bearer = value[:7].lower() == "bearer "
        state["claims"] = state["access_tokens"].read(value[7:].strip()) if is_bearer else None
    return state["claims"]


def valid_claims(scope: Scope) -> Claims | None:
    """The same; None for an invalid token, too."""
    state: AuthState = scope["state"]
    if "valid_claims" not in state:
        try:
            state["valid_claims"] = claims_of(scope)
        except Unauthorized:
            state["valid_claims"] = None
    return state["valid_claims"]
