from typing import Annotated

from fastapi import APIRouter, Query

from app.authentication import Admin
from app.dependencies import Audit
from app.schemas.accounts.audit import AuditEventRead, AuditQuery
from chassis.http.openapi import problems
from chassis.http.routing import Route
from chassis.schemas.page import Page

router = APIRouter(prefix="/v1/audit", tags=["administration"], route_class=Route)


@router.get("", responses=problems(401, 403), dependencies=[Admin])
async def get_audit_events(
    query: Annotated[AuditQuery, Query()], audit: Audit
) -> Page[AuditEventRead]:
    """List what has changed about accounts and their sessions, the latest first."""
    return await audit.page(query)
