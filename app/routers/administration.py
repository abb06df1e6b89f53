from typing import Annotated

from fastapi import APIRouter, Query
from starlette.routing import Match
from starlette.types import Scope

from app.authentication import Admin, CurrentSession
from app.dependencies import Administration
from app.schemas.accounts.user_admin import UserAdminRead, UserAdminUpdate, UserQuery
from chassis.http.dependencies import Id, RequestPreconditions
from chassis.http.openapi import problems, sends
from chassis.http.routing import Route
from chassis.schemas.page import Page


class AccountRoute(Route):
    """Does not match `/v1/users/verify` and the like: whatever the method, they are not its own."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        if match is not Match.NONE and not found["path_params"].get("user_id", "0").isdecimal():
            return Match.NONE, {}
        return match, found


# After the router of `/v1/users/me`, which `/{user_id}` matches too.
router = APIRouter(prefix="/v1/users", tags=["administration"], route_class=AccountRoute)


@router.get("", responses=problems(401, 403), dependencies=[Admin])
async def get_users(
    query: Annotated[UserQuery, Query()], administration: Administration
) -> Page[UserAdminRead]:
    """List or search accounts, in the order of their addresses."""
    return await administration.page(query)


@router.get(
    "/{user_id}", responses=problems(401, 403, 404) | sends(200, "ETag"), dependencies=[Admin]
)
async def get_user(user_id: Id, administration: Administration) -> UserAdminRead:
    """Get an account."""
    return await administration.get(user_id)


@router.patch(
    "/{user_id}",
    responses=problems(401, 403, 404, 409, 412) | sends(200, "ETag"),
    dependencies=[Admin],
)
async def update_user(
    user_id: Id,
    body: UserAdminUpdate,
    account: CurrentSession,
    administration: Administration,
    preconditions: RequestPreconditions,
) -> UserAdminRead:
    """Change the role of an account, disable or enable it.

    This takes effect with the account's next request.
    """
    return await administration.update(account.user.id, user_id, body, preconditions)
