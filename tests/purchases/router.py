from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import RedirectResponse

from app.authentication import Editor
from chassis.http.body_limit import max_body
from chassis.http.cached_responses import cached
from chassis.http.dependencies import (
    Id,
    Idempotent,
    RequestPreconditions,
    body_stream,
    on_resources,
    on_session,
)
from chassis.http.openapi import problems, sends
from chassis.http.routing import Route
from chassis.limits.route_limits import limited
from chassis.schemas.page import Limit, Page
from tests.purchases.receipts import KINDS, MAX_RECEIPT, ReceiptService
from tests.purchases.schema import (
    PurchaseCreate,
    PurchaseQuery,
    PurchaseRead,
    PurchaseUpdate,
    ReceiptRead,
    Totals,
    Tracking,
)
from tests.purchases.service import PurchaseService
from tests.purchases.totals import TotalsService
from tests.purchases.tracking import TrackingService

Purchases = Annotated[PurchaseService, Depends(on_session(PurchaseService))]
PurchaseTotals = Annotated[TotalsService, Depends(on_resources(TotalsService))]
Carriers = Annotated[TrackingService, Depends(on_resources(TrackingService))]
Receipts = Annotated[ReceiptService, Depends(on_resources(ReceiptService))]
ReceiptBody = Annotated[AsyncIterator[bytes], Depends(body_stream(KINDS))]
FILE = {"schema": {"type": "string", "format": "binary"}}

router = APIRouter(prefix="/v1/purchases", tags=["purchases"], route_class=Route)


@router.get("", responses=problems())
@cached(ttl=60, tags=["purchases"])
async def get_purchases(
    query: Annotated[PurchaseQuery, Query()], purchases: Purchases
) -> Page[PurchaseRead]:
    return await purchases.page(query)


# Before that of a single one, whose path it would match.
@router.get("/totals", responses=problems())
@cached(ttl=60, stale=60, ahead=15, max_age=60, stale_while_revalidate=300)
@limited("reads", cost=5)
async def get_purchase_totals(totals: PurchaseTotals, limit: Limit = 10) -> Totals:
    return await totals.by_status(limit)


@router.get("/{purchase_id}", responses=problems(404))
@cached(ttl=300, tags=["purchase:{purchase_id}"])
async def get_purchase(purchase_id: Id, purchases: Purchases) -> PurchaseRead:
    return await purchases.get(purchase_id)


@router.post(
    "",
    status_code=201,
    responses=problems(401, 403, 409, 412) | sends(201, "Location", "ETag"),
    dependencies=[Editor],
)
async def create_purchase(
    body: PurchaseCreate,
    purchases: Purchases,
    idempotent: Idempotent,
    preconditions: RequestPreconditions,
    response: Response,
) -> PurchaseRead:
    purchase = await purchases.create(body, idempotent, preconditions)
    response.headers["Location"] = f"/v1/purchases/{purchase.id}"
    return purchase


@router.patch(
    "/{purchase_id}",
    responses=problems(401, 403, 404, 409, 412) | sends(200, "ETag"),
    dependencies=[Editor],
)
async def update_purchase(
    purchase_id: Id, body: PurchaseUpdate, purchases: Purchases, preconditions: RequestPreconditions
) -> PurchaseRead:
    return await purchases.update(purchase_id, body, preconditions)


@router.delete(
    "/{purchase_id}", status_code=204, responses=problems(401, 403, 404, 412), dependencies=[Editor]
)
async def delete_purchase(
    purchase_id: Id, purchases: Purchases, preconditions: RequestPreconditions
) -> None:
    await purchases.delete(purchase_id, preconditions)


@router.get("/{purchase_id}/tracking", responses=problems(404))
async def get_tracking(purchase_id: Id, carriers: Carriers) -> Tracking:
    return await carriers.of_purchase(purchase_id)


@router.get(
    "/{purchase_id}/receipt",
    status_code=307,
    responses=problems(404) | sends(307, "Location", "ETag"),
    response_class=RedirectResponse,
)
async def get_receipt(purchase_id: Id, receipts: Receipts) -> RedirectResponse:
    url, etag = await receipts.url(purchase_id)
    return RedirectResponse(url, headers={"ETag": etag})


def max_receipt(settings: object) -> int:
    return MAX_RECEIPT


@router.put(
    "/{purchase_id}/receipt",
    responses=problems(401, 403, 404, 412, 415) | sends(200, "ETag"),
    dependencies=[Editor],
    openapi_extra={"requestBody": {"required": True, "content": dict.fromkeys(KINDS, FILE)}},
)
@max_body(max_receipt)
async def put_receipt(
    purchase_id: Id,
    receipts: Receipts,
    body: ReceiptBody,
    preconditions: RequestPreconditions,
    response: Response,
) -> ReceiptRead:
    receipt, response.headers["ETag"] = await receipts.put(purchase_id, body, preconditions)
    return receipt
