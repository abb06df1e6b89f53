from fastapi import APIRouter, BackgroundTasks

from app.dependencies import CurrentAccount, LoginForm, Logins, Once
from app.routing import Route, limited, problems
from app.schemas.token import TokenRefresh, TokensRead

router = APIRouter(prefix="/v1/tokens", tags=["tokens"], route_class=Route)


@router.post("", responses=problems(401, 409))
@limited("login")
async def create_tokens(
    form: LoginForm, logins: Logins, once: Once, background: BackgroundTasks
) -> TokensRead:
    """Log in: `username` is the e-mail address."""
    login = await logins.log_in(form.email, form.password, once)
    if login.outdated and form.email is not None:
        # After the answer. If it is lost, the next login does it: nothing to write down.
        background.add_task(logins.rehash, form.email, form.password)
    return login.tokens


@router.post("/refresh", responses=problems(401, 409))
async def refresh_tokens(body: TokenRefresh, logins: Logins, once: Once) -> TokensRead:
    """Each refresh token is good once; used again some seconds later, it ends the session."""
    return await logins.refresh(body.refresh_token, once)


@router.delete("", status_code=204, responses=problems(401))
async def delete_tokens(account: CurrentAccount, logins: Logins) -> None:
    """Log out: no token of this session counts any more."""
    await logins.log_out(account.session_id)
