from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from app.cached_responses import cached
from app.dependencies import Editor, Id, IfMatch, Once, on_read_session, on_session
from app.etag import etag_of
from app.routing import Route, problems
from app.schemas.page import Page
from tests.orders.schema import OrderCreate, OrderQuery, OrderRead, OrderUpdate
from tests.orders.service import OrderService

# A resource of the service has these two lines in app/dependencies.py.
Orders = Annotated[OrderService, Depends(on_read_session(OrderService))]
EditableOrders = Annotated[OrderService, Depends(on_session(OrderService))]

router = APIRouter(prefix="/v1/orders", tags=["orders"], route_class=Route)


@router.get("", responses=problems())
@cached(ttl=60, tags=["orders"])
async def get_orders(query: Annotated[OrderQuery, Query()], orders: Orders) -> Page[OrderRead]:
    return await orders.page(query)


@router.get("/{order_id}", responses=problems(404))
@cached(ttl=300, tags=["order:{order_id}"])
async def get_order(order_id: Id, orders: Orders) -> OrderRead:
    return await orders.get(order_id)


@router.post("", status_code=201, responses=problems(401, 403, 409, 413), dependencies=[Editor])
async def create_order(
    body: OrderCreate, orders: EditableOrders, once: Once, response: Response
) -> OrderRead:
    order = await orders.create(body, once)
    response.headers["Location"] = f"/v1/orders/{order.id}"
    response.headers["ETag"] = etag_of(order)
    return order


@router.patch(
    "/{order_id}", responses=problems(401, 403, 404, 409, 412, 413), dependencies=[Editor]
)
async def update_order(
    order_id: Id, body: OrderUpdate, orders: EditableOrders, if_match: IfMatch, response: Response
) -> OrderRead:
    order = await orders.update(order_id, body, if_match)
    response.headers["ETag"] = etag_of(order)
    return order


@router.delete(
    "/{order_id}", status_code=204, responses=problems(401, 403, 404), dependencies=[Editor]
)
async def delete_order(order_id: Id, orders: EditableOrders) -> None:
    await orders.delete(order_id)
