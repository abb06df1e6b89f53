from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import RedirectResponse

from app.body_limit import max_body
from app.dependencies import Covers, Editor, Id, ImageBody, Preconditions
from app.images import FORMATS
from app.routing import Route, limited, problems, sends
from app.schemas.cover import CoverRead, Size

IMAGE = {"type": "string", "format": "binary"}
IMAGE_BODY = {"required": True, "content": {kind: {"schema": IMAGE} for kind in FORMATS}}

router = APIRouter(prefix="/v1/books/{book_id}/cover", tags=["covers"], route_class=Route)


@router.get(
    "",
    status_code=307,
    responses=problems(404) | sends(307, "Location", "ETag"),
    response_class=RedirectResponse,
)
async def get_cover(
    book_id: Id, covers: Covers, size: Annotated[Size, Query()] = "medium"
) -> RedirectResponse:
    """Leads to the image, at an address that is good for some minutes."""
    url, etag = await covers.url(book_id, size)
    return RedirectResponse(url, headers={"ETag": etag})


@router.put(
    "",
    responses=problems(401, 403, 404, 412, 415) | sends(200, "ETag"),
    dependencies=[Editor],
    openapi_extra={"requestBody": IMAGE_BODY},
)
@max_body(lambda settings: settings.covers.max_body)
@limited("writes", cost=5)
async def put_cover(
    book_id: Id,
    covers: Covers,
    image: ImageBody,
    preconditions: Preconditions,
    response: Response,
) -> CoverRead:
    """Takes the image itself as the body, and keeps its pixels in three sizes."""
    cover, response.headers["ETag"] = await covers.put(book_id, image, preconditions)
    return cover
