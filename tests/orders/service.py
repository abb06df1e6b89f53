from typing import get_args

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.cache import Cache
from app.errors import Conflict, NotFound
from app.idempotency import ALWAYS, Once
from app.schemas.page import Page
from app.services.keyset import Sort
from app.services.preconditions import ExpectedTags, require_match
from tests.orders.model import Order
from tests.orders.schema import OrderCreate, OrderQuery, OrderRead, OrderSort, OrderUpdate

TABLE = Order.__table__
COLUMNS = [TABLE.c[name] for name in OrderRead.model_fields]


def _sort(name: str) -> Sort:
    column = TABLE.c[name.removeprefix("-")]
    tie = None if column is TABLE.c.id else TABLE.c.id
    return Sort(name, column, tie, descending=name.startswith("-"))


SORTS = {name: _sort(name) for name in get_args(OrderSort)}


class OrderService:
    def __init__(self, session: AsyncSession, cache: Cache) -> None:
        self.session = session
        self.cache = cache

    async def get(self, order_id: int) -> OrderRead:
        rows = await self.session.execute(select(*COLUMNS).where(Order.id == order_id))
        row = rows.mappings().first()
        if row is None:
            raise NotFound(f"Order {order_id} does not exist")
        return OrderRead(**row)

    async def page(self, query: OrderQuery) -> Page[OrderRead]:
        sort = SORTS[query.sort]
        page = select(*COLUMNS).order_by(*sort.by(TABLE)).limit(query.limit + 1)
        if query.status is not None:
            page = page.where(Order.status == query.status)
        if query.total_from is not None:
            page = page.where(Order.total >= query.total_from)
        if query.placed_from is not None:
            page = page.where(Order.placed_at >= query.placed_from)
        if query.after is not None:
            page = page.where(sort.after()).params(sort.cursor_params(query.after))
        rows = await self.session.execute(page)
        orders = [OrderRead(**row) for row in rows.mappings()]
        items = orders[: query.limit]
        return Page(items=items, next=sort.cursor(items[-1]) if items != orders else None)

    async def create(self, body: OrderCreate, once: Once = ALWAYS) -> OrderRead:
        if (known := await once.known(self.session, OrderRead)) is not None:
            return known
        order = Order(**body.model_dump())
        self.session.add(order)
        return await self._commit(order, once)

    async def update(
        self, order_id: int, body: OrderUpdate, expected: ExpectedTags = None
    ) -> OrderRead:
        order = await self._lock(order_id)
        if expected is not None:
            require_match(await self.get(order_id), expected)
        for name, value in body.model_dump(exclude_unset=True).items():
            setattr(order, name, value)
        order.version += 1
        return await self._commit(order)

    async def delete(self, order_id: int) -> None:
        order = await self._lock(order_id)
        await self.session.delete(order)
        async with self.cache.invalidating("orders", f"order:{order_id}"):
            await self.session.commit()

    async def _lock(self, order_id: int) -> Order:
        order = await self.session.get(Order, order_id, with_for_update=True)
        if order is None:
            raise NotFound(f"Order {order_id} does not exist")
        return order

    async def _commit(self, order: Order, once: Once = ALWAYS) -> OrderRead:
        number = order.number
        try:
            await self.session.flush()
        except IntegrityError as error:
            raise Conflict(f"There is an order {number} already") from error
        # What the database now holds: it rounds, cuts off and converts.
        stored = await self.get(order.id)
        await once.keep(self.session, stored)
        async with self.cache.invalidating("orders", f"order:{order.id}"):
            await self.session.commit()
        return stored
