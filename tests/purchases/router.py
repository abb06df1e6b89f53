from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from app.cached_responses import cached
from app.dependencies import Editor, Id, Once, Preconditions, on_read_session, on_session
from app.etag import etag_of
from app.routing import Route, problems, sends
from app.schemas.page import Page
from tests.purchases.schema import PurchaseCreate, PurchaseQuery, PurchaseRead, PurchaseUpdate
from tests.purchases.service import PurchaseService

# A resource of the service has these two lines in app/dependencies.py.
Purchases = Annotated[PurchaseService, Depends(on_read_session(PurchaseService))]
EditablePurchases = Annotated[PurchaseService, Depends(on_session(PurchaseService))]

router = APIRouter(prefix="/v1/purchases", tags=["purchases"], route_class=Route)


@router.get("", responses=problems())
@cached(ttl=60, tags=["purchases"])
async def get_purchases(
    query: Annotated[PurchaseQuery, Query()], purchases: Purchases
) -> Page[PurchaseRead]:
    return await purchases.page(query)


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
    purchases: EditablePurchases,
    once: Once,
    preconditions: Preconditions,
    response: Response,
) -> PurchaseRead:
    purchase = await purchases.create(body, once, preconditions)
    response.headers["Location"] = f"/v1/purchases/{purchase.id}"
    response.headers["ETag"] = etag_of(purchase)
    return purchase


@router.patch(
    "/{purchase_id}",
    responses=problems(401, 403, 404, 409, 412) | sends(200, "ETag"),
    dependencies=[Editor],
)
async def update_purchase(
    purchase_id: Id,
    body: PurchaseUpdate,
    purchases: EditablePurchases,
    preconditions: Preconditions,
    response: Response,
) -> PurchaseRead:
    purchase = await purchases.update(purchase_id, body, preconditions)
    response.headers["ETag"] = etag_of(purchase)
    return purchase


@router.delete(
    "/{purchase_id}", status_code=204, responses=problems(401, 403, 404, 412), dependencies=[Editor]
)
async def delete_purchase(
    purchase_id: Id, purchases: EditablePurchases, preconditions: Preconditions
) -> None:
    await purchases.delete(purchase_id, preconditions)
