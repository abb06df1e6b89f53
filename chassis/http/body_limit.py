"""Limits for the size of request bodies; FastAPI's own responds with plain text, not a problem."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Protocol, TypeVar

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope

from chassis.errors import Invalid
from chassis.http.request_state import HttpState
from chassis.limits.settings import RequestSettings

MAX_FORM = 65_536  # bytes; forms are decoded in Python, ten times slower than JSON
MAX_CONTAINERS = 20_000  # lists and objects in JSON; to parse a megabyte of them takes 0.5 s
GET_OR_HEAD = {"GET", "HEAD"}

MaxBody = Callable[[Any], int]  # of the settings, in bytes
F = TypeVar("F", bound=Callable[..., Any])


class HasRequest(Protocol):
    request: RequestSettings


def default_max_body(settings: HasRequest) -> int:
    return settings.request.max_body


def default_max_form(settings: HasRequest) -> int:
    return min(MAX_FORM, settings.request.max_body)


def max_body(limit: MaxBody) -> Callable[[F], F]:
    """Limit the bodies of this handler's requests in place of REQUEST_MAX_BODY."""

    def mark(handler: F) -> F:
        handler.max_body = limit  # type: ignore[attr-defined]
        return handler

    return mark


def limit_body(scope: Scope, receive: Receive, max_body: MaxBody) -> Receive:
    """A limited `receive`; both this and that raise HTTPException (413)."""
    state: HttpState = scope["state"]
    limit = max_body(state["settings"])
    # The server has checked that it is a number; a chunked body has none.
    if any(int(value) > limit for name, value in scope["headers"] if name == b"content-length"):
        raise _too_large(limit)
    received = 0

    async def limited_receive() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise _too_large(limit)
        return message

    return limited_receive


def check_containers(body: bytes) -> None:
    """Raises Invalid if unparsed JSON has too many lists and objects."""
    if body.count(b"[") + body.count(b"{") <= MAX_CONTAINERS:
        return
    # Not those in strings.
    unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    structure = b"".join(unescaped.split(b'"')[::2])
    if structure.count(b"[") + structure.count(b"{") > MAX_CONTAINERS:
        raise Invalid(f"Has more than {MAX_CONTAINERS} lists and objects", ("body",))


def _too_large(limit: int) -> HTTPException:
    # FastAPI turns any other error while it reads a body into "error parsing the body".
    return HTTPException(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body may have at most {limit} bytes"
    )
