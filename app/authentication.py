"""The login form, the account of an access token, and its role, as handlers ask for them."""

from collections import Counter
from typing import Annotated, NamedTuple

from fastapi import Depends, Request
from fastapi.security import OAuth2PasswordBearer, OAuth2PasswordRequestForm

from app.logins.password_throttle import PasswordThrottle
from app.schemas.user import Account, Role
from app.services.users import UserService
from chassis.auth.access_tokens import needs_token, require_claims
from chassis.errors import Forbidden, Invalid, NotFound, Unauthorized
from chassis.limits.rate_limit import client_network
from chassis.resources import Resources
from chassis.text.email_address import normalize_email

# For the documentation's Authorize button; the token itself is read by claims_of.
oauth2 = OAuth2PasswordBearer("/v1/tokens", refreshUrl="/v1/tokens/refresh", auto_error=False)


class Credentials(NamedTuple):
    email: str | None  # None: what was sent is not an address
    password: str


async def read_login(
    request: Request, form: Annotated[OAuth2PasswordRequestForm, Depends()]
) -> Credentials:
    names = (name for name, _ in (await request.form()).multi_items())
    for name, count in Counter(names).items():
        if count > 1:  # RFC 6749, 3.2; FastAPI would take the last one
            raise Invalid("Given more than once", ("body", name))
    try:
        email = normalize_email(form.username)
    except ValueError:
        return Credentials(None, form.password)
    return Credentials(email, form.password)


async def get_throttle(request: Request) -> PasswordThrottle:
    resources: Resources = request.scope["state"]
    return PasswordThrottle(resources, client_network(request.scope))


@needs_token
async def get_account(request: Request, token: Annotated[str | None, Depends(oauth2)]) -> Account:
    resources: Resources = request.scope["state"]
    try:
        return await UserService(resources).of_session(*require_claims(request.scope))
    except NotFound as error:
        raise Unauthorized(f"{error}; log in", invalid=True) from None


LoginForm = Annotated[Credentials, Depends(read_login)]
RequestThrottle = Annotated[PasswordThrottle, Depends(get_throttle)]
CurrentAccount = Annotated[Account, Depends(get_account)]


async def require_editor(account: CurrentAccount) -> None:
    if not account.user.role.includes(Role.EDITOR):
        raise Forbidden("This needs the role `editor`")


async def require_admin(account: CurrentAccount) -> None:
    if not account.user.role.includes(Role.ADMIN):
        raise Forbidden("This needs the role `admin`")


# For `dependencies=[...]` of a route.
Editor = Depends(require_editor)
Admin = Depends(require_admin)
