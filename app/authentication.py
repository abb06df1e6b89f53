"""The login form, and the account of an access token or API key, as handlers ask for them."""

from collections import Counter
from typing import Annotated, NamedTuple

from fastapi import BackgroundTasks, Depends, Form, Request
from fastapi.security import APIKeyHeader, OAuth2PasswordBearer, OAuth2PasswordRequestForm
from starlette.types import Scope

from app.logins.password_throttle import PasswordThrottle
from app.schemas.accounts.key import KeyAccount, KeyScope
from app.schemas.user import Account, Role
from app.services.accounts.keys import KeyService
from app.services.accounts.users import UserService
from chassis.auth import totp
from chassis.auth.access_tokens import Claims
from chassis.auth.api_keys import HEADER, KeyClaims, ParsedKey
from chassis.auth.credentials import (
    identify,
    needs_session,
    needs_token,
    require_claims,
    require_session,
)
from chassis.errors import Forbidden, Invalid, NotFound, Unauthorized
from chassis.limits.rate_limit import client_network
from chassis.resources import Resources
from chassis.text.email_address import normalize_email

# For the documentation's Authorize button; what is sent is read by claims_of.
oauth2 = OAuth2PasswordBearer(
    "/v1/tokens",
    refreshUrl="/v1/tokens/refresh",
    description="`username` is the e-mail address; there is no `client_id`",
    auto_error=False,
)
key_header = APIKeyHeader(
    name=HEADER,
    scheme_name="APIKey",
    description="A key of POST /v1/users/me/keys; `Authorization: Bearer` takes it, too",
    auto_error=False,
)


class Credentials(NamedTuple):
    email: str | None  # None: what was sent is not an address
    password: str
    otp: str | None


Otp = Annotated[
    str | None,
    Form(
        max_length=totp.MAX_LENGTH,
        description="Of an account with a second factor: a code of the app, or a recovery code",
    ),
]


async def read_login(
    request: Request, form: Annotated[OAuth2PasswordRequestForm, Depends()], otp: Otp = None
) -> Credentials:
    names = (name for name, _ in (await request.form()).multi_items())
    for name, count in Counter(names).items():
        if count > 1:  # RFC 6749, 3.2; FastAPI would take the last one
            raise Invalid("Given more than once", ("body", name))
    code = None if otp is None else totp.normalize_otp(otp)
    try:
        email = normalize_email(form.username)
    except ValueError:
        return Credentials(None, form.password, code)
    return Credentials(email, form.password, code)


async def get_throttle(request: Request) -> PasswordThrottle:
    resources: Resources = request.scope["state"]
    return PasswordThrottle(resources, client_network(request.scope))


async def find_key(scope: Scope, key: ParsedKey) -> KeyClaims:
    """For the application, which calls it once in a request with an API key."""
    account = await KeyService(scope["state"]).find(key, client_network(scope))
    return KeyClaims(key.user_id, key.key_id, KeyScope.WRITE in account.scopes, account)


async def _of_session(resources: Resources, claims: Claims) -> Account:
    try:
        return await UserService(resources).of_session(*claims)
    except NotFound as error:
        raise Unauthorized(f"{error}; log in", invalid=True) from None


@needs_token
async def get_account(
    request: Request,
    background: BackgroundTasks,
    token: Annotated[str | None, Depends(oauth2)],
    key: Annotated[str | None, Depends(key_header)],
) -> Account | KeyAccount:
    resources: Resources = request.scope["state"]
    await identify(request.scope)
    claims = require_claims(request.scope)
    if not isinstance(claims, KeyClaims):
        return await _of_session(resources, claims)
    account: KeyAccount = claims.account
    if account.is_use_due:
        background.add_task(KeyService(resources).record_use, account.key_id)
    return account


@needs_session
async def get_session(request: Request, token: Annotated[str | None, Depends(oauth2)]) -> Account:
    await identify(request.scope)
    return await _of_session(request.scope["state"], require_session(request.scope))


LoginForm = Annotated[Credentials, Depends(read_login)]
RequestThrottle = Annotated[PasswordThrottle, Depends(get_throttle)]
# Of a login or of an API key, for what an account does.
CurrentAccount = Annotated[Account | KeyAccount, Depends(get_account)]
# Of a login alone, for what changes the account itself: a key may not do that.
CurrentSession = Annotated[Account, Depends(get_session)]


async def require_editor(account: CurrentAccount) -> None:
    if not account.user.role.includes(Role.EDITOR):
        raise Forbidden("This needs the role `editor`")


async def require_admin(account: CurrentSession) -> None:
    if not account.user.role.includes(Role.ADMIN):
        raise Forbidden("This needs the role `admin`")


# For `dependencies=[...]` of a route.
Editor = Depends(require_editor)
Admin = Depends(require_admin)
