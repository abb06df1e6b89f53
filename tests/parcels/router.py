from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from app.cached_responses import cached
from app.dependencies import Editor, Id, IfMatch, Once, on_read_session, on_session
from app.etag import etag_of
from app.routing import Route, problems
from app.schemas.page import Page
from tests.parcels.schema import ParcelCreate, ParcelQuery, ParcelRead, ParcelUpdate
from tests.parcels.service import ParcelService

# A resource of the service has these two lines in app/dependencies.py.
Parcels = Annotated[ParcelService, Depends(on_read_session(ParcelService))]
EditableParcels = Annotated[ParcelService, Depends(on_session(ParcelService))]

router = APIRouter(prefix="/v1/parcels", tags=["parcels"], route_class=Route)


@router.get("", responses=problems())
@cached(ttl=60, tags=["parcels"])
async def get_parcels(query: Annotated[ParcelQuery, Query()], parcels: Parcels) -> Page[ParcelRead]:
    return await parcels.page(query)


@router.get("/{parcel_id}", responses=problems(404))
@cached(ttl=300, tags=["parcel:{parcel_id}"])
async def get_parcel(parcel_id: Id, parcels: Parcels) -> ParcelRead:
    return await parcels.get(parcel_id)


@router.post("", status_code=201, responses=problems(401, 403, 409, 413), dependencies=[Editor])
async def create_parcel(
    body: ParcelCreate, parcels: EditableParcels, once: Once, response: Response
) -> ParcelRead:
    parcel = await parcels.create(body, once)
    response.headers["Location"] = f"/v1/parcels/{parcel.id}"
    response.headers["ETag"] = etag_of(parcel)
    return parcel


@router.patch(
    "/{parcel_id}", responses=problems(401, 403, 404, 409, 412, 413), dependencies=[Editor]
)
async def update_parcel(
    parcel_id: Id,
    body: ParcelUpdate,
    parcels: EditableParcels,
    if_match: IfMatch,
    response: Response,
) -> ParcelRead:
    parcel = await parcels.update(parcel_id, body, if_match)
    response.headers["ETag"] = etag_of(parcel)
    return parcel


@router.delete(
    "/{parcel_id}", status_code=204, responses=problems(401, 403, 404), dependencies=[Editor]
)
async def delete_parcel(parcel_id: Id, parcels: EditableParcels) -> None:
    await parcels.delete(parcel_id)
