from fastapi import APIRouter, BackgroundTasks, Response
from fastapi.responses import StreamingResponse

from app.authentication import CurrentAccount, CurrentSession, RequestThrottle
from app.dependencies import Deletion, Export, MailRequests, Totp, Users
from app.schemas.accounts.export import AccountExport
from app.schemas.accounts.mailed import MailAccepted
from app.schemas.accounts.totp import TotpDisable, TotpEnable, TotpEnabled, TotpPending
from app.schemas.user import UserCreate, UserDelete, UserRead, UserUpdate
from chassis.http.dependencies import Idempotent, RequestPreconditions
from chassis.http.openapi import problems, sends
from chassis.http.routing import Route
from chassis.limits.route_limits import limited

router = APIRouter(prefix="/v1/users", tags=["users"], route_class=Route)


@router.post(
    "",
    status_code=201,
    response_model=UserRead,
    responses=problems(409) | sends(201, "Location", "ETag") | {202: {"model": MailAccepted}},
)
@limited("login")
async def create_user(
    body: UserCreate,
    users: Users,
    mails: MailRequests,
    idempotent: Idempotent,
    response: Response,
) -> UserRead | Response:
    """Register an account.

    202 where addresses are verified: the same for each address, and the mail tells.
    """
    if mails.verify:
        accepted = await mails.register(body, idempotent)
        return Response(accepted.model_dump_json(), 202, media_type="application/json")
    user = await users.create(body, idempotent=idempotent)
    response.headers["Location"] = "/v1/users/me"
    return user


@router.get("/me", responses=problems(401) | sends(200, "ETag"))
async def get_current_user(account: CurrentAccount) -> UserRead:
    """Get your account."""
    return account.user


@router.patch("/me", responses=problems(401, 403, 409, 412) | sends(200, "ETag"))
async def update_current_user(
    body: UserUpdate,
    account: CurrentSession,
    users: Users,
    preconditions: RequestPreconditions,
    throttle: RequestThrottle,
) -> UserRead:
    """Change your name or password."""
    return await users.update(account, body, throttle, preconditions)


@router.delete("/me", status_code=204, responses=problems(401, 403, 409, 412))
async def delete_current_user(
    body: UserDelete,
    account: CurrentSession,
    deletion: Deletion,
    preconditions: RequestPreconditions,
    throttle: RequestThrottle,
    background: BackgroundTasks,
) -> None:
    """Delete your account.

    It ends at once; what it has written is deleted right after the response.
    """
    await deletion.delete(account, body.current_password, throttle, preconditions)
    # If this is lost, the periodic job does it.
    background.add_task(deletion.delete_rest, account.user.id, seconds=2)


@router.get("/me/export", response_model=AccountExport, responses=problems(401, 403))
@limited("reads", cost=10)
async def export_current_user(account: CurrentSession, export: Export) -> StreamingResponse:
    """Export all that the service has of your account, as a file."""
    name = f'attachment; filename="account-{account.user.id}.json"'
    return StreamingResponse(
        export.stream(account),
        headers={"Content-Disposition": name},
        media_type="application/json",
    )


@router.post(
    "/me/totp",
    response_model=TotpEnabled,
    responses=problems(401, 403, 409) | {202: {"model": TotpPending}},
)
async def create_totp(
    body: TotpEnable,
    account: CurrentSession,
    totp: Totp,
    throttle: RequestThrottle,
    idempotent: Idempotent,
) -> TotpEnabled | Response:
    """Turn your second factor on, in two steps.

    The password alone gets 202 and a secret for the authenticator app. The password and a code of
    the app get 200 and recovery codes, and bring it into force.
    """
    password = body.current_password
    if body.otp is None:
        pending = await totp.begin(account, password, throttle, idempotent)
        return Response(pending.model_dump_json(), 202, media_type="application/json")
    return await totp.enable(account, password, body.otp, throttle, idempotent)


@router.delete("/me/totp", status_code=204, responses=problems(401, 403, 404, 409))
async def delete_totp(
    body: TotpDisable, account: CurrentSession, totp: Totp, throttle: RequestThrottle
) -> None:
    """Turn your second factor and its recovery codes off."""
    await totp.disable(account, body.current_password, body.otp, throttle)
