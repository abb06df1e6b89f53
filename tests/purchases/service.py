from typing import get_args

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.cache import Cache
from app.errors import Conflict, NotFound
from app.etag import etag_of
from app.idempotency import ALWAYS, Once
from app.schemas.page import Page
from app.services.keyset import Sort
from app.services.preconditions import UNCONDITIONAL, Preconditions
from app.services.transactions import transaction
from tests.purchases.model import Purchase
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
    tie = None if column is TABLE.c.id else TABLE.c.id
    return Sort(name, column, tie, descending=name.startswith("-"))


SORTS = {name: _sort(name) for name in get_args(PurchaseSort)}


class PurchaseService:
    def __init__(self, session: AsyncSession, cache: Cache) -> None:
        self.session = session
        self.cache = cache

    async def get(self, purchase_id: int) -> PurchaseRead:
        rows = await self.session.execute(select(*COLUMNS).where(Purchase.id == purchase_id))
        row = rows.mappings().first()
        if row is None:
            raise NotFound(f"Purchase {purchase_id} does not exist")
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
        if query.after is not None:
            page = page.where(sort.after()).params(sort.cursor_params(query.after))
        rows = await self.session.execute(page)
        purchases = [PurchaseRead(**row) for row in rows.mappings()]
        items = purchases[: query.limit]
        return Page(items=items, next=sort.cursor(items[-1]) if items != purchases else None)

    @transaction
    async def create(
        self,
        body: PurchaseCreate,
        once: Once = ALWAYS,
        preconditions: Preconditions = UNCONDITIONAL,
    ) -> PurchaseRead:
        if (known := await once.known(self.session, PurchaseRead)) is not None:
            return known
        if preconditions:
            preconditions.check(etag_of(await self.page(PurchaseQuery())))
        purchase = Purchase(**body.model_dump())
        self.session.add(purchase)
        return await self._commit(purchase, once)

    @transaction
    async def update(
        self,
        purchase_id: int,
        body: PurchaseUpdate,
        preconditions: Preconditions = UNCONDITIONAL,
    ) -> PurchaseRead:
        purchase = await self._lock(purchase_id)
        if preconditions:
            preconditions.check(etag_of(await self.get(purchase_id)))
        for name, value in body.model_dump(exclude_unset=True).items():
            setattr(purchase, name, value)
        purchase.version += 1
        return await self._commit(purchase)

    @transaction
    async def delete(self, purchase_id: int, preconditions: Preconditions = UNCONDITIONAL) -> None:
        purchase = await self._lock(purchase_id)
        if preconditions:
            preconditions.check(etag_of(await self.get(purchase_id)))
        await self.session.delete(purchase)
        async with self.cache.invalidating("purchases", f"purchase:{purchase_id}"):
            await self.session.commit()

    async def _lock(self, purchase_id: int) -> Purchase:
        purchase = await self.session.get(Purchase, purchase_id, with_for_update=True)
        if purchase is None:
            raise NotFound(f"Purchase {purchase_id} does not exist")
        return purchase

    async def _commit(self, purchase: Purchase, once: Once = ALWAYS) -> PurchaseRead:
        try:
            await self.session.flush()
        except IntegrityError as error:
            # The one unique value that a client can set.
            raise Conflict("Another purchase has this number") from error
        # What the database now holds: it rounds, cuts off and converts.
        stored = await self.get(purchase.id)
        await once.keep(self.session, stored)
        async with self.cache.invalidating("purchases", f"purchase:{purchase.id}"):
            await self.session.commit()
        return stored
