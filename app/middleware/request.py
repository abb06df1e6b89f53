"""What happens around every request, in one wrapper around `send`."""

import asyncio
import logging
import re
import time
import uuid
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import RETRY_AFTER, problem
from app.logs import request_id
from app.settings import RequestSettings

_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

log = logging.getLogger("app.request")


class RequestMiddleware:
    """Request id, time limit, an answer to what nobody caught, and the access line."""

    def __init__(self, app: ASGIApp, settings: RequestSettings) -> None:
        self.app = app
        self.timeout = settings.timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        start = time.perf_counter()
        state = scope["state"]
        id = state["request_id"] = _request_id(scope)
        request_id.set(id)
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                elapsed = time.perf_counter() - start
                message["headers"] += [
                    (b"x-request-id", id.encode()),
                    (b"x-process-time", b"%.6f" % elapsed),
                ]
            await send(message)

        try:
            async with asyncio.timeout(self.timeout) as deadline:
                await self.app(scope, receive, send_with_headers)
        except Exception as error:
            late = isinstance(error, TimeoutError) and deadline.expired()
            if not late:
                log.exception("Unhandled error")
            if status:
                raise  # half an answer is out: all that is left is to cut the connection
            response = _too_late(self.timeout, scope) if late else _broken(scope)
            await response(scope, receive, send_with_headers)
        finally:
            state["logs"].write(
                logging.INFO if status < 500 else logging.WARNING,
                f"{scope['method']} {scope['path']} {status}",
                {
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                    "duration_ms": round((time.perf_counter() - start) * 1000, 2),
                    "client": scope["client"] and scope["client"][0],
                    "request_id": id,
                },
            )


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SANE_ID.fullmatch(value):
            sane: bytes = value
            return sane.decode()
    return uuid.uuid4().hex


def _too_late(timeout: float, scope: Scope) -> ASGIApp:
    detail = f"The request took longer than {timeout:g} seconds"
    return problem(HTTPStatus.GATEWAY_TIMEOUT, detail, scope, RETRY_AFTER)


def _broken(scope: Scope) -> ASGIApp:
    detail = "Something went wrong here; the log has the reason under this request's id"
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail, scope)
