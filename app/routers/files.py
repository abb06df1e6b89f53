from http import HTTPStatus
from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from app.dependencies import Folder, Signed
from app.errors import NotFound
from app.etag import etag, is_known
from app.ranges import Unsatisfiable, read_range
from app.routing import SignedRoute

TYPE = "image/webp"

router = APIRouter(prefix="/files", route_class=SignedRoute)


@router.get("/{key:path}", include_in_schema=False)
async def get_file(key: str, left: Signed, folder: Folder, request: Request) -> Response:
    """What a signed URL leads to; `left`: the time that it is still good for, s."""
    headers = {"Cache-Control": f"private, max-age={left}"}
    if (served_at := request.state.settings.files.accel) is not None:
        headers["X-Accel-Redirect"] = f"{served_at}/{quote(key)}"
        return Response(headers=headers, media_type=TYPE)
    size = await folder.size(key)
    if size is None:
        raise NotFound("This file was replaced; ask again for its address")
    tag = etag(key.encode())  # a key has one content
    headers |= {"ETag": tag, "Accept-Ranges": "bytes"}
    if is_known(request.scope, tag):
        return Response(status_code=304, headers=headers)
    try:
        is_same = request.headers.get("If-Range", tag) == tag
        ranges = request.headers.getlist("Range") if is_same else []
        part = read_range(ranges[0] if len(ranges) == 1 else None, size)
    except Unsatisfiable:
        raise HTTPException(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            f"The file has {size} bytes",
            {"Content-Range": f"bytes */{size}"},
        ) from None
    status = 200 if part is None else 206
    if part is not None:
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    part = part or range(size)
    headers["Content-Length"] = str(len(part))
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=TYPE)
    return StreamingResponse(folder.read(key, part), status, headers, TYPE)
