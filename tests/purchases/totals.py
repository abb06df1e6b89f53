from functools import partial

from sqlalchemy import func, select

from chassis.database.engines import Sessions
from chassis.resources import Resources
from tests.purchases.model import Purchase
from tests.purchases.schema import Total, Totals


class TotalsService:
    """A heavy aggregate, which is kept for a while and invalidated by no write."""

    def __init__(self, resources: Resources) -> None:
        self.sessions = resources["sessions"]
        self.cache = resources["cache"]

    async def by_status(self, limit: int) -> Totals:
        # One entry serves every limit. Its load has a session of its own, as it may outlive the
        # request.
        totals = await self.cache.get_or_load(
            "purchases:totals", Totals, partial(_by_status, self.sessions), ttl=300, ahead=60
        )
        return Totals(items=totals.items[:limit])


async def _by_status(sessions: Sessions) -> Totals:
    count, total = func.count(), func.sum(Purchase.total)
    statement = (
        select(Purchase.status, count.label("count"), total.label("total"))
        .group_by(Purchase.status)
        .order_by(total.desc(), Purchase.status)
    )
    async with sessions.read() as session:
        rows = (await session.execute(statement)).mappings().all()
    return Totals(items=[Total.model_validate(row) for row in rows])
