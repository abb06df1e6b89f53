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
from tests.parcels.model import Parcel
from tests.parcels.schema import ParcelCreate, ParcelQuery, ParcelRead, ParcelSort, ParcelUpdate

TABLE = Parcel.__table__
COLUMNS = [TABLE.c[name] for name in ParcelRead.model_fields]


def _sort(name: str) -> Sort:
    column = TABLE.c[name.removeprefix("-")]
    tie = None if column is TABLE.c.id else TABLE.c.id
    return Sort(name, column, tie, descending=name.startswith("-"))


SORTS = {name: _sort(name) for name in get_args(ParcelSort)}


class ParcelService:
    def __init__(self, session: AsyncSession, cache: Cache) -> None:
        self.session = session
        self.cache = cache

    async def get(self, parcel_id: int) -> ParcelRead:
        rows = await self.session.execute(select(*COLUMNS).where(Parcel.id == parcel_id))
        row = rows.mappings().first()
        if row is None:
            raise NotFound(f"Parcel {parcel_id} does not exist")
        return ParcelRead(**row)

    async def page(self, query: ParcelQuery) -> Page[ParcelRead]:
        sort = SORTS[query.sort]
        page = select(*COLUMNS).order_by(*sort.by(TABLE)).limit(query.limit + 1)
        if query.status is not None:
            page = page.where(Parcel.status == query.status)
        if query.price_from is not None:
            page = page.where(Parcel.price >= query.price_from)
        if query.sent_from is not None:
            page = page.where(Parcel.sent_at >= query.sent_from)
        if query.after is not None:
            page = page.where(sort.after()).params(sort.cursor_params(query.after))
        rows = await self.session.execute(page)
        parcels = [ParcelRead(**row) for row in rows.mappings()]
        items = parcels[: query.limit]
        return Page(items=items, next=sort.cursor(items[-1]) if items != parcels else None)

    async def create(self, body: ParcelCreate, once: Once = ALWAYS) -> ParcelRead:
        if (known := await once.known(self.session, ParcelRead)) is not None:
            return known
        parcel = Parcel(**body.model_dump())
        self.session.add(parcel)
        return await self._commit(parcel, once)

    async def update(
        self, parcel_id: int, body: ParcelUpdate, expected: ExpectedTags = None
    ) -> ParcelRead:
        parcel = await self._lock(parcel_id)
        if expected is not None:
            require_match(await self.get(parcel_id), expected)
        for name, value in body.model_dump(exclude_unset=True).items():
            setattr(parcel, name, value)
        parcel.version += 1
        return await self._commit(parcel)

    async def delete(self, parcel_id: int) -> None:
        parcel = await self._lock(parcel_id)
        await self.session.delete(parcel)
        async with self.cache.invalidating("parcels", f"parcel:{parcel_id}"):
            await self.session.commit()

    async def _lock(self, parcel_id: int) -> Parcel:
        parcel = await self.session.get(Parcel, parcel_id, with_for_update=True)
        if parcel is None:
            raise NotFound(f"Parcel {parcel_id} does not exist")
        return parcel

    async def _commit(self, parcel: Parcel, once: Once = ALWAYS) -> ParcelRead:
        number = parcel.number
        try:
            await self.session.flush()
        except IntegrityError as error:
            raise Conflict(f"There is a parcel {number} already") from error
        # What the database now holds: it rounds, cuts off and converts.
        stored = await self.get(parcel.id)
        await once.keep(self.session, stored)
        async with self.cache.invalidating("parcels", f"parcel:{parcel.id}"):
            await self.session.commit()
        return stored
