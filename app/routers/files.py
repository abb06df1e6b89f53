from urllib.parse import quote

from anyio import Path
from fastapi import APIRouter, Request
from fastapi.responses import FileResponse
from starlette.responses import Response

from app.dependencies import Folder, Signed
from app.errors import NotFound
from app.etag import etag, read_etags
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
    path = folder.path(key)
    if not await Path(path).is_file():
        raise NotFound("This file was replaced; ask again for its address")
    headers["ETag"] = etag(key.encode())  # a key has one content
    known = read_etags(request.headers.get("If-None-Match", ""))
    if known is None or headers["ETag"] in known:
        return Response(status_code=304, headers=headers)
    return FileResponse(path, headers=headers, media_type=TYPE)
