"""What a handler of any service may ask for."""

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Path, Request
from pydantic import StringConstraints
from pydantic.json_schema import SkipJsonSchema
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import ClientDisconnect

from chassis.database.engines import Sessions
from chassis.errors import ClientDisconnected, Invalid, UnsupportedMedia
from chassis.header_fields import list_field
from chassis.http.body_limit import GET_OR_HEAD
from chassis.http.etag import Tags, read_etags
from chassis.http.preconditions import Preconditions
from chassis.idempotency import requests as idempotency
from chassis.limits.rate_limit import caller_of
from chassis.request_context import current_request
from chassis.schemas import fields
from chassis.schemas.fields import Whole

T = TypeVar("T")
# As `read_etags` takes it, for the documentation; it reads all lines of the header as one list.
ENTITY_TAGS = r'^([ \t]*\*[ \t]*|[ \t,]*((W/)?"[!#-~\u0080-\u00ff]*"[ \t,]*)+)$'
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")

Id = Annotated[Whole[fields.Id], Path()]


async def open_session(request: Request) -> AsyncSession:
    """Closed, without a commit, before the response is sent: the service commits.

    A dependency that yields would do the same, at the cost of two generators and a cancel scope.
    """
    sessions: Sessions = request.scope["state"]["sessions"]
    session = (sessions.read if request.method in GET_OR_HEAD else sessions.write)()
    stack: AsyncExitStack = request.scope["fastapi_function_astack"]
    return await stack.enter_async_context(session)


Session = Annotated[AsyncSession, Depends(open_session)]


def on_session(service: Callable[[AsyncSession, Any], T]) -> Callable[..., Any]:
    """A dependency: `service(session, resources)`; the session is read-only for GET and HEAD."""

    async def make(request: Request, session: Session) -> T:
        return service(session, request.scope["state"])

    return make


def on_resources(service: Callable[[Any], T]) -> Callable[..., Any]:
    """A dependency: `service(resources)`, which opens sessions of its own."""

    async def make(request: Request) -> T:
        return service(request.scope["state"])

    return make


def body_stream(media_types: Collection[str]) -> Callable[..., Any]:
    """A dependency: the body as it arrives. Raises UnsupportedMedia for other types."""

    async def read(request: Request) -> AsyncIterator[bytes]:
        # Not a generator itself: FastAPI would keep it open until the response is sent.
        if media_type(request) not in media_types:
            raise UnsupportedMedia(f"Send one of {', '.join(media_types)}", media_types)
        return _parts(request)

    return read


async def _parts(request: Request) -> AsyncIterator[bytes]:
    try:
        async for part in request.stream():
            yield part
    except ClientDisconnect:
        raise ClientDisconnected from None


def _etags(name: str, description: str) -> Any:
    pattern: Any = {"pattern": ENTITY_TAGS}
    return Header(alias=name, description=description, json_schema_extra=pattern)


async def read_preconditions(
    request: Request,
    if_match: Annotated[
        str | SkipJsonSchema[None], _etags("If-Match", "Change only what has one of these `ETag`s")
    ] = None,
    if_none_match: Annotated[
        str | SkipJsonSchema[None],
        _etags(
            "If-None-Match",
            "Change only what has none of these `ETag`s; `*`: only what does not exist",
        ),
    ] = None,
) -> Preconditions:
    """FastAPI reads one line of each, for the documentation; a list may take several."""

    def tags(name: str) -> Tags | None:
        field = list_field(request.scope, name.lower().encode())
        try:
            return None if field is None else read_etags(field)
        except ValueError as error:
            raise Invalid(str(error), ("header", name)) from None

    return Preconditions(tags("If-Match"), tags("If-None-Match"))


async def read_idempotency_key(
    request: Request,
    key: Annotated[
        # Without null in the document: no header can be that.
        Annotated[str, StringConstraints(pattern='^(?:"[^"]{1,255}"|[^"]{1,255})$')]
        | SkipJsonSchema[None],
        Header(
            alias=idempotency.HEADER,
            description="Makes it safe to send this again: it has one effect and one response",
        ),
    ] = None,
) -> idempotency.IdempotentRequest:
    if key is None:
        return idempotency.NO_KEY
    if (context := current_request.get()) is not None:
        context.has_idempotency_key = True
    # FastAPI has read the body by now, as a form or as bytes.
    form = media_type(request) in FORMS
    body = repr((await request.form()).multi_items()).encode() if form else await request.body()
    request_line = f"{request.method} {request.url.path}?{request.url.query}\n".encode()
    store: idempotency.IdempotencyStore = request.state.idempotency
    return idempotency.IdempotentRequest(store, caller_of(request.scope), key, request_line + body)


def media_type(request: Request) -> str:
    """Without parameters, as Starlette has it where it reads a form."""
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


RequestPreconditions = Annotated[Preconditions, Depends(read_preconditions)]
Idempotent = Annotated[idempotency.IdempotentRequest, Depends(read_idempotency_key)]
