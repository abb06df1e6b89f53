from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import RedirectResponse

from app.authentication import Editor
from app.sample.dependencies import Covers
from app.sample.images import FORMATS
from app.schemas.cover import CoverRead, Size
from app.settings import Settings
from chassis.http.body_limit import max_body
from chassis.http.dependencies import Id, RequestPreconditions, body_stream
from chassis.http.openapi import problems, sends
from chassis.http.routing import Route
from chassis.limits.route_limits import limited

ImageBody = Annotated[AsyncIterator[bytes], Depends(body_stream(FORMATS))]
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
    """Get the cover of a book.

    Redirects to the image, at a URL that is valid for some minutes.
    """
    url, etag = await covers.url(book_id, size)
    return RedirectResponse(url, headers={"ETag": etag})


def max_image(settings: Settings) -> int:
    return settings.covers.max_body


@router.put(
    "",
    responses=problems(401, 403, 404, 412, 415) | sends(200, "ETag"),
    dependencies=[Editor],
    openapi_extra={"requestBody": IMAGE_BODY},
)
@max_body(max_image)
@limited("writes", cost=5)
async def put_cover(
    book_id: Id,
    covers: Covers,
    image: ImageBody,
    preconditions: RequestPreconditions,
    response: Response,
) -> CoverRead:
    """Set the cover of a book.

    The body is the image itself; its pixels are stored in three sizes.
    """
    cover, response.headers["ETag"] = await covers.put(book_id, image, preconditions)
    return cover
