from fastapi import APIRouter

from app.authentication import CurrentAccount
from app.sample.dependencies import Dashboard
from app.schemas.dashboard import DashboardRead
from app.services.dashboard import RECOMMENDED
from app.settings import Settings
from chassis.http.openapi import problems
from chassis.http.routing import Route
from chassis.limits.route_limits import limited

router = APIRouter(prefix="/v1/users/me/dashboard", tags=["dashboard"], route_class=Route)


def dashboard_cost(settings: Settings) -> int:
    return RECOMMENDED * len(settings.offers.all)


@router.get("", responses=problems(401))
@limited("reads", cost=dashboard_cost)
async def get_dashboard(account: CurrentAccount, dashboard: Dashboard) -> DashboardRead:
    """Get your profile, latest reviews and recommendations.

    Parts that fail or take too long are null, and named.
    """
    return await dashboard.of_user(account.user)
