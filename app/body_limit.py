"""How large a request's body may be; FastAPI's own limit answers in plain text."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope

from app.errors import Invalid
from app.settings import Settings

# Bytes. Python decodes a form character by character, which takes ten times as long as JSON.
MAX_FORM = 65_536
MAX_CONTAINERS = 20_000  # lists and objects in JSON; a megabyte of them takes half a second
BODILESS = {"GET", "HEAD"}

MaxBody = Callable[[Settings], int]
F = TypeVar("F", bound=Callable[..., Any])


def usual(settings: Settings) -> int:
    return settings.request.max_body


def usual_form(settings: Settings) -> int:
    return min(MAX_FORM, settings.request.max_body)


def max_body(most: MaxBody) -> Callable[[F], F]:
    """Let this handler's requests have so many bytes, instead of REQUEST_MAX_BODY."""

    def mark(handler: F) -> F:
        handler.max_body = most  # type: ignore[attr-defined]
        return handler

    return mark


def limit_body(scope: Scope, receive: Receive, most: MaxBody) -> Receive:
    """A `receive` for this request; this, or what it gives, raises HTTPException (413)."""
    if scope["method"] in BODILESS:
        return receive
    limit = most(scope["state"]["settings"])
    if _content_length(scope) > limit:
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
    """Raises Invalid; of any JSON, before it is parsed."""
    if body.count(b"[") + body.count(b"{") <= MAX_CONTAINERS:
        return
    # What stands in strings is text.
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(plain.split(b'"')[::2])
    if outside.count(b"[") + outside.count(b"{") > MAX_CONTAINERS:
        raise Invalid(f"Has more than {MAX_CONTAINERS} lists and objects", ("body",))


def _too_large(limit: int) -> HTTPException:
    # FastAPI reads bodies, and takes any error but this one for a body that is no JSON.
    return HTTPException(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body may have at most {limit} bytes"
    )


def _content_length(scope: Scope) -> int:
    """Zero where a chunked body does not say; the server has checked that it is a number."""
    return next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)
