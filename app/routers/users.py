from fastapi import APIRouter, Response

from app.authentication import CurrentAccount, RequestThrottle
from app.dependencies import MailRequests, Users
from app.schemas.mailed import MailAccepted
from app.schemas.user import UserCreate, UserRead, UserUpdate
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
    """202 where addresses are verified: the same for each address, and the mail tells."""
    if mails.verify:
        accepted = await mails.register(body, idempotent)
        return Response(accepted.model_dump_json(), 202, media_type="application/json")
    user = await users.create(body, idempotent=idempotent)
    response.headers["Location"] = "/v1/users/me"
    return user


@router.get("/me", responses=problems(401) | sends(200, "ETag"))
async def get_current_user(account: CurrentAccount) -> UserRead:
    return account.user


@router.patch("/me", responses=problems(401, 409, 412) | sends(200, "ETag"))
async def update_current_user(
    body: UserUpdate,
    account: CurrentAccount,
    users: Users,
    preconditions: RequestPreconditions,
    throttle: RequestThrottle,
) -> UserRead:
    return await users.update(account, body, throttle, preconditions)
