from typing import Annotated

from fastapi import APIRouter, Query

from app.authentication import CurrentSession
from app.dependencies import UserSessions
from app.schemas.accounts.session import SessionId, SessionQuery, SessionRead
from chassis.http.openapi import problems
from chassis.http.routing import Route
from chassis.schemas.page import Page

router = APIRouter(prefix="/v1/users/me/sessions", tags=["sessions"], route_class=Route)


@router.get("", responses=problems(401, 403))
async def get_sessions(
    query: Annotated[SessionQuery, Query()], account: CurrentSession, sessions: UserSessions
) -> Page[SessionRead]:
    """List where you are logged in, the latest login first."""
    return await sessions.page(account, query)


@router.delete("", status_code=204, responses=problems(401, 403))
async def delete_other_sessions(account: CurrentSession, sessions: UserSessions) -> None:
    """Log out everywhere else.

    The session of this request stays.
    """
    await sessions.end_others(account)


@router.delete("/{session_id}", status_code=204, responses=problems(401, 403, 404))
async def delete_session(
    session_id: SessionId, account: CurrentSession, sessions: UserSessions
) -> None:
    """End a session at once."""
    await sessions.end(account, session_id)
