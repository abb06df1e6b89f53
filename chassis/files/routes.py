import re
from http import HTTPStatus
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, RangeNotSatisfiable, Response
from starlette.types import Receive, Scope

from chassis.errors import Forbidden, Invalid, NotFound
from chassis.files.signed_urls import NOT_SIGNED
from chassis.files.storage import FolderStorage, content_type
from chassis.http.etag import etag, is_known
from chassis.http.routing import Route

_RANGE = re.compile(r"bytes=((?P<first>\d{1,18})-(?P<last>\d{0,18})|-\d{1,18})", re.ASCII | re.I)


class SingleRangeResponse(FileResponse):
    """A file, or one part of it (RFC 9110, section 14).

    The whole file where several parts are wanted, or the Range header is invalid: a server may
    ignore it. Starlette responds 400 to an invalid one, takes some for valid, such as `bytes=+1-`,
    and responds text/plain to one beyond the end.
    """

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        found = _RANGE.fullmatch(http_range)
        if found is None or (found["last"] and int(found["last"]) < int(found["first"])):
            return []
        try:
            return super()._parse_range_header(http_range, file_size)
        except RangeNotSatisfiable:
            raise HTTPException(
                HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
                f"The file has {file_size} bytes",
                {"Content-Range": f"bytes */{file_size}"},
            ) from None


class SignedRoute(Route):
    """Rejects unknown query parameters with 403, as part of a URL that was not signed."""

    def checked(self, scope: Scope, receive: Receive) -> Receive:
        try:
            return super().checked(scope, receive)
        except (RequestValidationError, Invalid):
            raise Forbidden(NOT_SIGNED) from None


async def get_folder(request: Request) -> FolderStorage:
    storage = request.state.storage
    if not isinstance(storage, FolderStorage):
        raise NotFound("Files are not stored in a folder here")
    return storage


Folder = Annotated[FolderStorage, Depends(get_folder)]


async def read_signature(folder: Folder, key: str, expires: str = "", signature: str = "") -> int:
    return folder.urls.check(key, expires, signature)


Signed = Annotated[int, Depends(read_signature)]

router = APIRouter(prefix="/files", route_class=SignedRoute)


@router.get("/{key:path}", include_in_schema=False)
async def get_file(key: str, left: Signed, folder: Folder, request: Request) -> Response:
    """`left`: remaining lifetime of the URL, s."""
    headers = {"Cache-Control": f"private, max-age={left}"}
    if (served_at := request.state.settings.files.accel) is not None:
        headers["X-Accel-Redirect"] = f"{served_at}/{quote(key)}"
        return Response(headers=headers, media_type=content_type(key))
    headers |= {"ETag": (tag := etag(key.encode()))}  # a key has one content
    if is_known(request.scope, tag):
        return Response(status_code=304, headers=headers)
    if len(request.headers.getlist("Range")) > 1:  # as invalid as one that cannot be parsed
        scope = request.scope
        scope["headers"] = [field for field in scope["headers"] if field[0] != b"range"]
    stat = await folder.stat(key)
    if stat is None:
        raise NotFound("This file was replaced; request its URL again")
    return SingleRangeResponse(
        folder.path(key), headers=headers, media_type=content_type(key), stat_result=stat
    )
