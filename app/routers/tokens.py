from fastapi import APIRouter, BackgroundTasks

from app.authentication import CurrentSession, LoginForm, RequestThrottle
from app.dependencies import Logins, Users, UserSessions
from app.schemas.token import TokenRefresh, TokensRead
from chassis.http.dependencies import Idempotent
from chassis.http.openapi import problems
from chassis.http.routing import Route
from chassis.limits.route_limits import limited

router = APIRouter(prefix="/v1/tokens", tags=["tokens"], route_class=Route)


@router.post("", responses=problems(401, 403, 409))
@limited("login")
async def create_tokens(
    form: LoginForm,
    logins: Logins,
    users: Users,
    throttle: RequestThrottle,
    idempotent: Idempotent,
    background: BackgroundTasks,
) -> TokensRead:
    """Log in with a password.

    `username` is the e-mail address. An account with a second factor gets a 401 of the type
    `urn:problem-type:otp-required` until `otp` is sent, too: a code of its authenticator app, or a
    recovery code.
    """
    login = await logins.log_in(form.email, form.password, form.otp, throttle, idempotent)
    if login.outdated and form.email is not None:
        # After the response. If this is lost, the next login does it: no job is needed.
        background.add_task(users.rehash, form.email, form.password)
    return login.tokens


@router.post("/refresh", responses=problems(401, 409))
async def refresh_tokens(body: TokenRefresh, logins: Logins, idempotent: Idempotent) -> TokensRead:
    """Get new tokens for a refresh token.

    Each is good once; used again some seconds later, it ends the session.
    """
    return await logins.refresh(body.refresh_token, idempotent)


@router.delete("", status_code=204, responses=problems(401, 403))
async def delete_tokens(account: CurrentSession, sessions: UserSessions) -> None:
    """Log out.

    No token of this session counts any more.
    """
    await sessions.log_out(account)
