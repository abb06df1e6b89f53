from functools import partial
from typing import get_args

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.database.keyset import Sort
from chassis.database.transactions import retry_on_deadlock
from chassis.errors import Conflict, Invalid, NotFound
from chassis.http.etag import etag_of
from chassis.http.preconditions import UNCONDITIONAL, Preconditions
from chassis.idempotency.requests import NO_KEY, IdempotentRequest
from chassis.resources import Resources
from chassis.schemas.fields import differing
from chassis.schemas.page import Page
from tests.purchases.model import Payer, Purchase
from tests.purchases.schema import (
    PurchaseCreate,
    PurchaseQuery,
    PurchaseRead,
    PurchaseSort,
    PurchaseUpdate,
)

TABLE = Purchase.__table__
COLUMNS = [TABLE.c[name] for name in PurchaseRead.model_fields]


def _sort(name: str) -> Sort:
    column = TABLE.c[name.removeprefix("-")]
    tie = None if column.primary_key or column.unique else TABLE.c.id
    return Sort(name, column, tie, descending=name.startswith("-"))


SORTS = {name: _sort(name) for name in get_args(PurchaseSort)}


class PurchaseService:
    def __init__(self, session: AsyncSession, resources: Resources) -> None:
        self.session = session
        self.cache = resources["cache"]

    async def get(self, purchase_id: int) -> PurchaseRead:
        rows = await self.session.execute(select(*COLUMNS).where(Purchase.id == purchase_id))
        row = rows.mappings().first()
        if row is None:
            raise no_purchase(purchase_id)
        return PurchaseRead(**row)

    async def page(self, query: PurchaseQuery) -> Page[PurchaseRead]:
        sort = SORTS[query.sort]
        page = select(*COLUMNS).order_by(*sort.by(TABLE)).limit(query.limit + 1)
        if query.status is not None:
            page = page.where(Purchase.status == query.status)
        if query.total_from is not None:
            page = page.where(Purchase.total >= query.total_from)
        if query.placed_from is not None:
            page = page.where(Purchase.placed_at >= query.placed_from)
        if query.note is not None:
            page = page.where(Purchase.note == query.note)
        if query.payer_id is not None:
            page = page.where(Purchase.payer_id == query.payer_id)
        if query.after is not None:
            page = page.where(sort.after()).params(sort.cursor_params(query.after))
        rows = await self.session.execute(page)
        return sort.page([PurchaseRead(**row) for row in rows.mappings()], query.limit)

    @retry_on_deadlock
    async def create(
        self,
        body: PurchaseCreate,
        idempotent: IdempotentRequest = NO_KEY,
        preconditions: Preconditions = UNCONDITIONAL,
    ) -> PurchaseRead:
        work = partial(self._create, body, preconditions)
        purchase, is_new = await idempotent.run(self.session, PurchaseRead, work)
        if is_new:
            async with self.cache.invalidating("purchases", f"purchase:{purchase.id}"):
                await self.session.commit()
        return purchase

    @retry_on_deadlock
    async def update(
        self,
        purchase_id: int,
        body: PurchaseUpdate,
        preconditions: Preconditions = UNCONDITIONAL,
    ) -> PurchaseRead:
        purchase = await self._lock(purchase_id, preconditions)
        if not (changes := differing(purchase, body.model_dump(exclude_unset=True))):
            return await self.get(purchase_id)
        for name, value in changes.items():
            setattr(purchase, name, value)
        await self._lock_payer(purchase.payer_id)
        purchase.version += 1
        stored = await self._store(purchase)
        async with self.cache.invalidating("purchases", f"purchase:{purchase_id}"):
            await self.session.commit()
        return stored

    @retry_on_deadlock
    async def delete(self, purchase_id: int, preconditions: Preconditions = UNCONDITIONAL) -> None:
        await self.session.delete(await self._lock(purchase_id, preconditions))
        async with self.cache.invalidating("purchases", f"purchase:{purchase_id}"):
            await self.session.commit()

    async def _lock(self, purchase_id: int, preconditions: Preconditions) -> Purchase:
        purchase = await self.session.get(Purchase, purchase_id, with_for_update=True)
        if purchase is None:
            raise no_purchase(purchase_id)
        if preconditions:
            preconditions.check(etag_of(await self.get(purchase_id)))
        return purchase

    async def _create(self, body: PurchaseCreate, preconditions: Preconditions) -> PurchaseRead:
        if preconditions:
            # One at a time: each sees what the one before has added.
            first = select(Purchase.id).order_by(Purchase.id).limit(1)
            await self.session.execute(first.with_for_update())
            preconditions.check(etag_of(await self.page(PurchaseQuery())))
        await self._lock_payer(body.payer_id)
        purchase = Purchase(**body.model_dump())
        self.session.add(purchase)
        return await self._store(purchase)

    async def _lock_payer(self, payer_id: int | None) -> None:
        """It cannot be deleted before the commit."""
        if payer_id is None:
            return
        # Not what else has changed by now: that is to be stored in one statement.
        with self.session.no_autoflush:
            found = await self.session.scalar(
                select(Payer.id).where(Payer.id == payer_id).with_for_update(read=True)
            )
        if found is None:
            raise Invalid(f"Payer {payer_id} does not exist", ("body", "payer_id"))

    async def _store(self, purchase: Purchase) -> PurchaseRead:
        """As the database now holds it: it rounds, cuts off and converts."""
        try:
            await self.session.flush()
        except IntegrityError as error:
            # The one unique value that a client can set.
            raise Conflict("Another purchase has this number") from error
        return await self.get(purchase.id)


def no_purchase(purchase_id: int) -> NotFound:
    return NotFound(f"Purchase {purchase_id} does not exist")
