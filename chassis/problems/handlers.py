"""The one place that turns errors into responses."""

import logging
import re
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from http.client import responses as reasons
from inspect import iscoroutinefunction
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.routing import Match
from starlette.types import Scope

from chassis.database.errors import is_broken_reference, is_temporary
from chassis.errors import RETRY_AFTER, AppError, Invalid, UnfitValue
from chassis.problems.response import invalid, problem
from chassis.problems.tracebacks import without_traceback
from chassis.problems.validation_errors import Faults

log = logging.getLogger("app.errors")

# MariaDB: "Data too long for column 'note' at row 1", "... for column `db`.`orders`.`total` at ..."
_COLUMN = re.compile(r"column (?:`\w+`\.)*['`](\w+)['`]")


async def on_app_error(request: Request, error: AppError) -> Response:
    if isinstance(error, Invalid):
        fault = {"loc": error.loc, "msg": str(error), "type": "value_error"}
        return problem(error.status, str(error), request.scope, errors=Faults([fault]).shown)
    return problem(error.status, str(error), request.scope, error.headers, **error.problem)


async def on_http_error(request: Request, error: HTTPException) -> Response:
    if (reason := _unreadable(error)) is not None:
        return invalid([{"loc": ["body"], "msg": reason, "type": "unreadable"}], request.scope)
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers |= _allow(request.scope, headers.get("Allow", ""))
    detail: Any = error.detail
    if isinstance(detail, str):
        return problem(error.status_code, detail, request.scope, headers)
    # RFC 9457 requires a string as `detail`; other data goes into a member of its own.
    reason = reasons.get(error.status_code, "Error")
    return problem(error.status_code, reason, request.scope, headers, data=detail)


def _unreadable(error: HTTPException) -> str | None:
    """Why a body could not be read: FastAPI and Starlette raise 400 for it, clients get 422.

    None where a handler has raised the error.
    """
    if error.status_code != HTTPStatus.BAD_REQUEST:
        return None
    if isinstance(error.__context__, MultiPartException):
        return str(error.detail)
    cause = error.__cause__
    if cause is None or error.detail != "There was an error parsing the body":
        return None
    if isinstance(cause, Invalid):
        return str(cause)
    if isinstance(cause, RecursionError):
        return "Is nested too deeply"
    if isinstance(cause, UnicodeDecodeError):
        return "Is not UTF-8"
    return "Is not of the type that Content-Type declares"


def _allow(scope: Mapping[str, Any], inner: str) -> dict[str, str]:
    """The methods of all routes of this path (RFC 9110, 10.2.1); a route knows only its own.

    `inner`: the Allow header of a mounted application.
    """
    outer = {**scope, "root_path": scope.get("app_root_path", scope["root_path"])}
    methods = {method.strip() for method in inner.split(",")} - {""}
    for route in scope["app"].routes:
        if route.matches(outer)[0] is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
            if route.matches({**outer, "method": "HEAD"})[0] is Match.FULL:
                methods.add("HEAD")
    if scope["method"] in methods:
        return {}  # raised by a handler
    return {"Allow": ", ".join(sorted(methods))}


async def on_invalid_request(request: Request, error: RequestValidationError) -> Response:
    return invalid(error.errors(), request.scope)


async def on_unfit_value(request: Request, error: DataError) -> Response:
    """A fallback: the schema should have refused what the column cannot store."""
    log.warning("A value does not fit: %s", error.orig, extra={"path": request.url.path})
    column = _COLUMN.search(str(error.orig))
    loc = ("body", column[1]) if column else ("body",)
    message = "A value is too long or out of range for the database"
    if isinstance(error.orig, UnfitValue):
        message = str(error.orig)
    return await on_app_error(request, Invalid(message, loc))


async def on_integrity_error(request: Request, error: IntegrityError) -> Response:
    """409 where a reference is broken: services check them, so another request came between."""
    if not is_broken_reference(error):
        return await on_database_error(request, error)
    log.info("A reference was broken: %s", error.orig, extra={"path": request.url.path})
    detail = "Something that this refers to was deleted, or is in use, by another request"
    return problem(HTTPStatus.CONFLICT, detail, request.scope)


async def on_database_error(request: Request, error: DBAPIError | PoolTimeout) -> Response:
    """503 if the database is unreachable, overloaded or late; other errors are bugs (500)."""
    if not is_temporary(error):
        raise error
    cause = error.orig if isinstance(error, DBAPIError) else error
    log.warning("Database unavailable: %s", cause, extra={"path": request.url.path})
    detail = "The database is unavailable; try again shortly"
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, request.scope, RETRY_AFTER)


async def handled(error: Exception, scope: Scope) -> Response:
    """The response of the application's handler for this error; raises an error without one.

    A handler of `Exception` is not asked: whatever nobody expected is logged and reported.
    """
    handlers = scope["app"].exception_handlers
    kinds: list[Any] = [kind for kind in type(error).__mro__ if issubclass(kind, Exception)][:-1]
    if isinstance(error, HTTPException):
        kinds.insert(0, error.status_code)
    for kind in kinds:
        if (handler := handlers.get(kind)) is not None:
            if not iscoroutinefunction(handler):
                handler = partial(run_in_threadpool, handler)
            response: Response = await handler(Request(scope), error)
            return response
    raise error


def add_error_handlers(app: FastAPI) -> None:
    # Starlette types handlers for `Exception`, ours take one class each.
    handlers: dict[Any, Any] = {
        AppError: on_app_error,
        HTTPException: on_http_error,
        RequestValidationError: on_invalid_request,
        DataError: on_unfit_value,
        IntegrityError: on_integrity_error,
        DBAPIError: on_database_error,
        PoolTimeout: on_database_error,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, without_traceback(handler))
