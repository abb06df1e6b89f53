from fastapi import APIRouter, Response

from app.dependencies import CurrentAccount, Dashboard, LimitGuesses, Once, Preconditions, Users
from app.etag import etag_of
from app.routing import Route, limited, problems, sends
from app.schemas.dashboard import DashboardRead
from app.schemas.user import UserCreate, UserRead, UserUpdate

router = APIRouter(prefix="/v1/users", tags=["users"], route_class=Route)


@router.post("", status_code=201, responses=problems(409) | sends(201, "Location", "ETag"))
@limited("login")
async def create_user(body: UserCreate, users: Users, once: Once, response: Response) -> UserRead:
    user = await users.create(body, once=once)
    response.headers["Location"] = "/v1/users/me"
    response.headers["ETag"] = etag_of(user)
    return user


@router.get("/me", responses=problems(401) | sends(200, "ETag"))
async def get_current_user(account: CurrentAccount, response: Response) -> UserRead:
    response.headers["ETag"] = etag_of(account.user)
    return account.user


@router.get("/me/dashboard", responses=problems(401))
async def get_dashboard(account: CurrentAccount, dashboard: Dashboard) -> DashboardRead:
    return await dashboard.of_user(account.user)


@router.patch("/me", responses=problems(401, 409, 412) | sends(200, "ETag"))
async def update_current_user(
    body: UserUpdate,
    account: CurrentAccount,
    users: Users,
    preconditions: Preconditions,
    limit_guesses: LimitGuesses,
    response: Response,
) -> UserRead:
    if "password" in body.model_fields_set:
        await limit_guesses()
    user = await users.update(account, body, preconditions)
    response.headers["ETag"] = etag_of(user)
    return user
