import httpx2 as httpx
from sqlalchemy import select

from chassis.errors import NotFound
from chassis.resources import Resources
from tests.purchases.model import Purchase
from tests.purchases.schema import Tracking
from tests.purchases.service import no_purchase


class TrackingService:
    """Asks another server: the one that is the note of the purchase."""

    def __init__(self, resources: Resources) -> None:
        self.sessions = resources["sessions"]
        self.http = resources["http"]

    async def of_purchase(self, purchase_id: int) -> Tracking:
        async with self.sessions.read() as session:
            wanted = select(Purchase.id, Purchase.note).where(Purchase.id == purchase_id)
            row = (await session.execute(wanted)).first()
        if row is None:
            raise no_purchase(purchase_id)
        if row.note is None:
            raise NotFound(f"Purchase {purchase_id} has no carrier")
        try:
            return Tracking(status=(await self.http.get(row.note)).status_code)
        except httpx.HTTPError:
            return Tracking(status=None)
