"""Break the reference cycles of errors that have become responses.

A traceback refers to frames, and often a local variable of one refers back to the error. Such a
cycle keeps the whole request in memory, its body included, until the garbage collector runs, which
counts objects and not bytes.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError

Handler = Callable[[Request, Any], Awaitable[Response]]


def without_traceback(handler: Handler) -> Handler:
    async def handle(request: Request, error: Exception) -> Response:
        response = await handler(request, error)
        clear_tracebacks(error)
        return response

    return handle


def clear_tracebacks(error: BaseException) -> None:
    """Of `error` and of all errors that it refers to."""
    remaining: list[Any] = [error]
    seen = set()
    while remaining:
        each = remaining.pop()
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        each.__traceback__ = None
        remaining += each.__cause__, each.__context__
        if isinstance(each, RequestValidationError):  # which holds errors of validators
            remaining += (fault.get("ctx", {}).get("error") for fault in each.errors())
