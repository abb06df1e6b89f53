"""Whose purchases they are: a resource of a name, which is unique and which others refer to."""

from datetime import datetime
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.authentication import Editor
from chassis.database.keyset import Sort
from chassis.database.transactions import retry_on_deadlock
from chassis.errors import Conflict, NotFound
from chassis.http.cached_responses import cached
from chassis.http.dependencies import Id, Idempotent, RequestPreconditions, on_session
from chassis.http.etag import etag_of
from chassis.http.openapi import problems, sends
from chassis.http.preconditions import UNCONDITIONAL, Preconditions
from chassis.http.routing import Route
from chassis.idempotency.requests import NO_KEY, IdempotentRequest
from chassis.resources import Resources
from chassis.schemas.fields import OMITTED, Body, Text, differing
from chassis.schemas.page import After, Limit, Page
from tests.purchases.model import Payer

PayerName = Annotated[str, Text(max_length=300), Field(examples=["Mary Shelley"])]


class PayerRead(BaseModel):
    id: int = Field(examples=[12])
    name: str
    version: int
    created_at: datetime
    updated_at: datetime


class PayerCreate(Body):
    name: PayerName


class PayerUpdate(Body):
    name: PayerName = OMITTED


class PayerQuery(BaseModel):
    limit: Limit = 20
    after: After = None
    sort: Literal["id", "name"] = "id"


TABLE = Payer.__table__
COLUMNS = [TABLE.c[name] for name in PayerRead.model_fields]
SORTS = {sort.name: sort for sort in (Sort("id", TABLE.c.id), Sort("name", TABLE.c.name))}


class PayerService:
    def __init__(self, session: AsyncSession, resources: Resources) -> None:
        self.session = session
        self.cache = resources["cache"]

    async def get(self, payer_id: int) -> PayerRead:
        rows = await self.session.execute(select(*COLUMNS).where(Payer.id == payer_id))
        row = rows.mappings().first()
        if row is None:
            raise _no_payer(payer_id)
        return PayerRead(**row)

    async def page(self, query: PayerQuery) -> Page[PayerRead]:
        sort = SORTS[query.sort]
        page = select(*COLUMNS).order_by(*sort.by(TABLE)).limit(query.limit + 1)
        if query.after is not None:
            page = page.where(sort.after()).params(sort.cursor_params(query.after))
        rows = await self.session.execute(page)
        return sort.page([PayerRead(**row) for row in rows.mappings()], query.limit)

    @retry_on_deadlock
    async def create(
        self,
        body: PayerCreate,
        idempotent: IdempotentRequest = NO_KEY,
        preconditions: Preconditions = UNCONDITIONAL,
    ) -> PayerRead:
        work = partial(self._create, body, preconditions)
        payer, is_new = await idempotent.run(self.session, PayerRead, work)
        if is_new:
            async with self.cache.invalidating("payers", f"payer:{payer.id}"):
                await self.session.commit()
        return payer

    @retry_on_deadlock
    async def update(
        self, payer_id: int, body: PayerUpdate, preconditions: Preconditions = UNCONDITIONAL
    ) -> PayerRead:
        payer = await self._lock(payer_id, preconditions)
        if not (changes := differing(payer, body.model_dump(exclude_unset=True))):
            return await self.get(payer_id)
        payer.name = changes["name"]
        payer.version += 1
        stored = await self._store(payer)
        async with self.cache.invalidating("payers", f"payer:{payer_id}"):
            await self.session.commit()
        return stored

    @retry_on_deadlock
    async def delete(self, payer_id: int, preconditions: Preconditions = UNCONDITIONAL) -> None:
        await self.session.delete(await self._lock(payer_id, preconditions))
        try:
            async with self.cache.invalidating("payers", f"payer:{payer_id}"):
                await self.session.commit()
        except IntegrityError as error:
            raise Conflict(f"Payer {payer_id} has purchases; delete those first") from error

    async def _lock(self, payer_id: int, preconditions: Preconditions) -> Payer:
        payer = await self.session.get(Payer, payer_id, with_for_update=True)
        if payer is None:
            raise _no_payer(payer_id)
        if preconditions:
            preconditions.check(etag_of(await self.get(payer_id)))
        return payer

    async def _create(self, body: PayerCreate, preconditions: Preconditions) -> PayerRead:
        if preconditions:
            # One at a time: each sees what the one before has added.
            first = select(Payer.id).order_by(Payer.id).limit(1)
            await self.session.execute(first.with_for_update())
            preconditions.check(etag_of(await self.page(PayerQuery())))
        payer = Payer(name=body.name)
        self.session.add(payer)
        return await self._store(payer)

    async def _store(self, payer: Payer) -> PayerRead:
        name = payer.name
        try:
            await self.session.flush()
        except IntegrityError as error:
            raise Conflict(f"There is a payer named {name} already") from error
        return await self.get(payer.id)


def _no_payer(payer_id: int) -> NotFound:
    return NotFound(f"Payer {payer_id} does not exist")


Payers = Annotated[PayerService, Depends(on_session(PayerService))]

router = APIRouter(prefix="/v1/payers", tags=["payers"], route_class=Route)


@router.get("", responses=problems())
@cached(ttl=60, tags=["payers"])
async def get_payers(query: Annotated[PayerQuery, Query()], payers: Payers) -> Page[PayerRead]:
    return await payers.page(query)


@router.get("/{payer_id}", responses=problems(404))
@cached(ttl=300, tags=["payer:{payer_id}"])
async def get_payer(payer_id: Id, payers: Payers) -> PayerRead:
    return await payers.get(payer_id)


@router.post(
    "",
    status_code=201,
    responses=problems(401, 403, 409, 412) | sends(201, "Location", "ETag"),
    dependencies=[Editor],
)
async def create_payer(
    body: PayerCreate,
    payers: Payers,
    idempotent: Idempotent,
    preconditions: RequestPreconditions,
    response: Response,
) -> PayerRead:
    payer = await payers.create(body, idempotent, preconditions)
    response.headers["Location"] = f"/v1/payers/{payer.id}"
    return payer


@router.patch(
    "/{payer_id}",
    responses=problems(401, 403, 404, 409, 412) | sends(200, "ETag"),
    dependencies=[Editor],
)
async def update_payer(
    payer_id: Id, body: PayerUpdate, payers: Payers, preconditions: RequestPreconditions
) -> PayerRead:
    return await payers.update(payer_id, body, preconditions)


@router.delete(
    "/{payer_id}",
    status_code=204,
    responses=problems(401, 403, 404, 409, 412),
    dependencies=[Editor],
)
async def delete_payer(payer_id: Id, payers: Payers, preconditions: RequestPreconditions) -> None:
    await payers.delete(payer_id, preconditions)
