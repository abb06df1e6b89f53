"""The credentials of a request: an access token or an API key, read once."""

from collections.abc import Awaitable, Callable
from typing import Any, NotRequired, TypedDict, TypeVar

from starlette.types import Scope

from chassis.auth.access_tokens import AccessTokens, Claims
from chassis.auth.api_keys import HEADER, ApiKeys, KeyClaims, ParsedKey
from chassis.errors import Forbidden, Unauthorized
from chassis.header_fields import single_field
from chassis.request_context import SAFE_METHODS

AMBIGUOUS = f"Send one of Authorization and {HEADER}, not both"
NO_WRITE = "This API key may only read: it lacks the scope `write`"
NO_SESSION = "An API key cannot do this: log in, with POST /v1/tokens"
NO_SCOPE = {"WWW-Authenticate": 'Bearer error="insufficient_scope"'}
NEEDS_WRITE = {"WWW-Authenticate": 'Bearer error="insufficient_scope", scope="write"'}

F = TypeVar("F", bound=Callable[..., Any])
# Looks a key up; raises Unauthorized where there is no such key, or where it is no longer valid.
FindKey = Callable[[Scope, ParsedKey], Awaitable[KeyClaims]]


class AuthState(TypedDict):
    """See chassis/http/request_state.py; what is not required is of one request."""

    access_tokens: AccessTokens
    api_keys: ApiKeys
    find_key: NotRequired[FindKey]
    refused_key: NotRequired[str]  # why
    claims: NotRequired[Claims | KeyClaims | None]
    valid_claims: NotRequired[Claims | KeyClaims | None]


def authorization(scope: Scope) -> str | None:
    """The header; raises Unauthorized if it was sent twice, which is ambiguous."""
    return _single(scope, b"authorization")


def needs_token(dependency: F) -> F:
    """Mark a dependency that needs a token or a key: without one the body is not read."""
    dependency.needs_token = True  # type: ignore[attr-defined]
    return dependency


def needs_session(dependency: F) -> F:
    """Mark a dependency that needs a login: for an API key the body is not read either."""
    dependency.needs_session = True  # type: ignore[attr-defined]
    return needs_token(dependency)


async def identify(scope: Scope) -> None:
    """Look up the API key of a request, if it has one. Call it before what follows here.

    An error is for those who need the key: elsewhere, invalid credentials are none.
    """
    state: AuthState = scope["state"]
    find_key = state.get("find_key")
    if find_key is None or "claims" in state or "refused_key" in state:
        return
    try:
        text = _key_of(scope, state["api_keys"].prefix)
        if text is not None:
            state["claims"] = await find_key(scope, state["api_keys"].read(text))
    except Unauthorized as error:
        # Its text, not the error: that refers to this frame, which is a cycle.
        state["refused_key"] = str(error)


def claims_of(scope: Scope) -> Claims | KeyClaims | None:
    """Of the API key, or of the bearer token (RFC 6750); None without. Raises Unauthorized."""
    state: AuthState = scope["state"]
    if "claims" not in state:
        if (reason := state.get("refused_key")) is not None:
            raise Unauthorized(reason, invalid=True)
        token = _bearer(scope)
        state["claims"] = None if token is None else state["access_tokens"].read(token)
    return state["claims"]


def valid_claims(scope: Scope) -> Claims | KeyClaims | None:
    """The same; None for invalid credentials, too."""
    state: AuthState = scope["state"]
    if "valid_claims" not in state:
        try:
            state["valid_claims"] = claims_of(scope)
        except Unauthorized:
            state["valid_claims"] = None
    return state["valid_claims"]


def require_claims(scope: Scope) -> Claims | KeyClaims:
    """Raises Unauthorized without credentials, Forbidden for a key that may not do this."""
    claims = claims_of(scope)
    if claims is None:
        raise Unauthorized("This needs an access token, from POST /v1/tokens, or an API key")
    if isinstance(claims, KeyClaims) and not (claims.can_write or scope["method"] in SAFE_METHODS):
        raise Forbidden(NO_WRITE, NEEDS_WRITE)
    return claims


def require_session(scope: Scope) -> Claims:
    """The same, where no API key may do this, whatever its scopes."""
    claims = claims_of(scope)
    if isinstance(claims, KeyClaims):
        raise Forbidden(NO_SESSION, NO_SCOPE)
    if claims is None:
        raise Unauthorized("This needs an access token, from POST /v1/tokens")
    return claims


def _key_of(scope: Scope, prefix: str) -> str | None:
    key = _single(scope, HEADER.lower().encode())
    token = _bearer(scope)
    if key is None:
        return token if token is not None and token.startswith(prefix) else None
    if authorization(scope) is not None:
        raise Unauthorized(AMBIGUOUS, invalid=True)
    return key.strip()


def _bearer(scope: Scope) -> str | None:
    value = authorization(scope) or ""
    return value[7:].strip() if value[:7].lower() == "bearer " else None


def _single(scope: Scope, name: bytes) -> str | None:
    try:
        return single_field(scope, name)
    except ValueError as error:
        raise Unauthorized(str(error), invalid=True) from None
