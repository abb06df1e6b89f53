"""Refuses large request bodies with a problem; FastAPI's own limit answers in plain text."""

from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import problem
from app.settings import RequestSettings


class BodyLimitMiddleware:
    def __init__(self, app: ASGIApp, settings: RequestSettings) -> None:
        self.app = app
        self.max_body = settings.max_body
        self.detail = f"The body may have at most {settings.max_body} bytes"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in {"GET", "HEAD"}:
            return await self.app(scope, receive, send)

        if _content_length(scope) > self.max_body:
            response = problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self.detail, scope)
            return await response(scope, receive, send)

        received = 0

        async def limited_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_body:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self.detail)
            return message

        await self.app(scope, limited_receive, send)


def _content_length(scope: Scope) -> int:
    """Zero where a chunked body does not say; the server has checked that it is a number."""
    return next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)
