from fastapi import APIRouter

from app.dependencies import CurrentAccount, LoginForm, Logins
from app.routing import Route, limited, problems
from app.schemas.token import TokenRefresh, TokensRead

router = APIRouter(prefix="/v1/tokens", tags=["tokens"], route_class=Route)


@router.post("", responses=problems(401, 413))
@limited("login")
async def create_tokens(form: LoginForm, logins: Logins) -> TokensRead:
    """Log in: `username` is the e-mail address."""
    return await logins.log_in(form.username, form.password)


@router.post("/refresh", responses=problems(401, 413))
async def refresh_tokens(body: TokenRefresh, logins: Logins) -> TokensRead:
    """Each refresh token is good once; used again, it ends the session."""
    return await logins.refresh(body.refresh_token)


@router.delete("", status_code=204, responses=problems(401))
async def delete_tokens(account: CurrentAccount, logins: Logins) -> None:
    """Log out: no token of this session counts any more."""
    await logins.log_out(account.session_id)
