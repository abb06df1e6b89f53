"""What can go wrong, by meaning, and the one place that turns it into RFC 9457 problems."""

import logging
import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.routing import Match

from app.faults import Faults, cut
from app.request_context import RequestContext, current_request

MAX_DETAIL = 600  # characters
MAX_PATH = 500
RETRY_AFTER = {"Retry-After": "1"}

# Both drivers call a misspelt column an OperationalError, just as a server that is away.
MARIADB_TEMPORARY = {
    (1020,),  # the record has changed since it was read
    (1021,),  # the disk is full
    (1026,),  # so it was when a file was written
    (1114,),  # a table is full, as the disk is
    (1040,),  # too many connections
    (1053,),  # the server shuts down
    (1205,),  # waited too long for a lock
    (1213,),  # deadlock
    (1317,),  # the statement was interrupted
    (1927,),  # the connection was killed
    (1969,),  # max_statement_time
    (2002,),  # no connection, by socket
    (2003,),  # no connection, by address
    (2006,),  # the server has gone away
    (2013,),  # the connection was lost
}
SQLITE_TEMPORARY = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}

# The transaction was undone, most often to end a deadlock; the same once more will do.
MARIADB_UNDONE = {(1020,), (1213,)}
SQLITE_UNDONE = {sqlite3.SQLITE_BUSY_SNAPSHOT}
SQLITE_REFUSED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL}

OUTCOME_UNKNOWN = "urn:problem-type:outcome-unknown"

log = logging.getLogger("app.errors")


class AppError(Exception):
    """An error with a status; its text is shown to the client."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    headers: Mapping[str, str] = {}


class Unauthorized(AppError):
    status = HTTPStatus.UNAUTHORIZED

    def __init__(self, message: str, *, invalid: bool = False) -> None:
        """`invalid`: there was a token, but not a good one (RFC 6750, section 3)."""
        super().__init__(message)
        self.headers = {"WWW-Authenticate": 'Bearer error="invalid_token"' if invalid else "Bearer"}


class Forbidden(AppError):
    status = HTTPStatus.FORBIDDEN


class NotFound(AppError):
    status = HTTPStatus.NOT_FOUND

    def __init__(self, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.headers = headers or {}


class Conflict(AppError):
    status = HTTPStatus.CONFLICT


class CutOff(AppError):
    """The client left before its request was whole; nobody reads this."""

    status = HTTPStatus.BAD_REQUEST


class PreconditionFailed(AppError):
    status = HTTPStatus.PRECONDITION_FAILED


class Unavailable(AppError):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    headers = RETRY_AFTER


class Overloaded(Unavailable):
    """Refused to keep what was accepted fast."""

    def __init__(self, message: str, retry_after: int = 1) -> None:
        """`retry_after`: s."""
        super().__init__(message)
        self.headers = {"Retry-After": str(retry_after)}


class TooManyRequests(AppError):
    status = HTTPStatus.TOO_MANY_REQUESTS

    def __init__(self, policy: str, retry_after: int) -> None:
        """`retry_after`: s."""
        super().__init__(f"Too many {policy}; try again in {retry_after} s")
        self.headers = {"Retry-After": str(retry_after)}


class UnsupportedMedia(AppError):
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE

    def __init__(self, message: str, supported: Iterable[str]) -> None:
        super().__init__(message)
        self.headers = {"Accept": ", ".join(supported)}  # RFC 9110, 15.5.16


class Invalid(AppError):
    """A value that only the service can judge; `loc` as in FastAPI's own 422."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY

    def __init__(self, message: str, loc: tuple[str | int, ...]) -> None:
        super().__init__(message)
        self.loc = loc


class UnfitValue(ValueError):
    """A value that a type of columns refuses; its text is shown to the client."""


def problem(
    status: int,
    detail: str,
    scope: Mapping[str, Any],
    headers: Mapping[str, str] | None = None,
    **extra: Any,
) -> Response:
    """An `application/problem+json` answer (RFC 9457) of some 20 kB at most, but for `extra`."""
    request = current_request.get()
    if status >= 500 and request is not None and request.commit != "none":
        # Its change is made, or may be: this is no "not done, try again".
        headers = {name: value for name, value in (headers or {}).items() if name != "Retry-After"}
        if request.is_repeatable:
            headers |= RETRY_AFTER
        detail, more = _outcome(request, detail)
        extra |= more
    request_id = scope["state"].get("request_id")
    body = problem_body(status, detail, scope["path"], request_id, **extra)
    # Without a word a cache may keep a 404 or a 405 as long as it likes (RFC 9111, 4.2.2).
    headers = {"Cache-Control": "no-store"} | dict(headers or {})
    return Response(body, status, headers, "application/problem+json")


def _outcome(request: RequestContext, detail: str) -> tuple[str, dict[str, str]]:
    """What to say, and what else, where an error has come after a COMMIT was sent."""
    if request.commit == "done":
        return f"{detail}; the change itself is made", {}
    if request.has_idempotency_key:
        advice = "send the same again with the same Idempotency-Key: it takes effect once"
    elif request.is_repeatable:
        advice = "send the same again: it has the same effect once or twice"
    else:
        advice = "look whether it was before you send it again (a POST with an Idempotency-Key can"
        advice += " be sent again as it is)"
    more = {"type": OUTCOME_UNKNOWN, "title": "Outcome unknown"}
    return (
        f"The commit got no reply, so it is not known whether the change was made: {advice}",
        more,
    )


def problem_body(
    status: int, detail: str, path: str, request_id: str | None, **extra: Any
) -> bytes:
    return orjson.dumps(
        {
            "type": "about:blank",
            "title": _phrase(status),
            "status": status,
            "detail": cut(detail, MAX_DETAIL),
            "instance": cut(path, MAX_PATH),
            "request_id": request_id,
            **extra,
        },
        default=str,
    )


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def invalid(errors: Sequence[Mapping[str, Any]], scope: Mapping[str, Any]) -> Response:
    """422, with the first faults and their number."""
    faults = Faults(errors)
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    return problem(status, str(faults), scope, errors=faults.shown)


async def on_app_error(request: Request, error: AppError) -> Response:
    if isinstance(error, Invalid):
        fault = {"loc": error.loc, "msg": str(error), "type": "value_error"}
        return problem(error.status, str(error), request.scope, errors=Faults([fault]).shown)
    return problem(error.status, str(error), request.scope, error.headers)


async def on_http_error(request: Request, error: HTTPException) -> Response:
    if (reason := _unreadable(error)) is not None:
        return invalid([{"loc": ["body"], "msg": reason, "type": "unreadable"}], request.scope)
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers |= _allow(request.scope, headers.get("Allow", ""))
    detail: Any = error.detail
    if isinstance(detail, str):
        return problem(error.status_code, detail, request.scope, headers)
    # RFC 9457 has a sentence there; what a handler says as data stands beside it.
    phrase = _phrase(error.status_code)
    return problem(error.status_code, phrase, request.scope, headers, data=detail)


def _unreadable(error: HTTPException) -> str | None:
    """Why a body could not be read: FastAPI and Starlette report that as 400, and to clients it is
    as invalid as any other. None where a handler has raised the error.
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
    return "Cannot be read as what Content-Type says that it is"


def _allow(scope: Mapping[str, Any], said: str) -> dict[str, str]:
    """The methods of all routes of this path (RFC 9110, 10.2.1); a route knows only its own.

    `said`: those that a mounted application has named itself.
    """
    outer = {**scope, "root_path": scope.get("app_root_path", scope["root_path"])}
    methods = {method.strip() for method in said.split(",")} - {""}
    for route in scope["app"].routes:
        if route.matches(outer)[0] is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
            if route.matches({**outer, "method": "HEAD"})[0] is Match.FULL:
                methods.add("HEAD")
    if scope["method"] in methods:
        return {}  # it was a handler that refused
    return {"Allow": ", ".join(sorted(methods))}


async def on_invalid_request(request: Request, error: RequestValidationError) -> Response:
    return invalid(error.errors(), request.scope)


async def on_unfit_value(request: Request, error: DataError) -> Response:
    """A safety net: the schema should have refused what its column cannot hold."""
    log.warning("A value does not fit: %s", error.orig, extra={"path": request.url.path})
    column = _COLUMN.search(str(error.orig))
    loc = ("body", column[1]) if column else ("body",)
    message = "A value is too long or out of range for the database"
    if isinstance(error.orig, UnfitValue):
        message = str(error.orig)
    return await on_app_error(request, Invalid(message, loc))


# MariaDB: "Data too long for column 'note' at row 1", "... for column `db`.`orders`.`total` at ..."
_COLUMN = re.compile(r"column (?:`\w+`\.)*['`](\w+)['`]")


async def on_database_error(request: Request, error: DBAPIError | PoolTimeout) -> Response:
    """The database is away, overloaded or over its time: worth another try, unlike a bug."""
    if not _is_temporary(error):
        raise error
    cause = error.orig if isinstance(error, DBAPIError) else error
    log.warning("Database unavailable: %s", cause, extra={"path": request.url.path})
    detail = "The database cannot answer right now; try again shortly"
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, request.scope, RETRY_AFTER)


def _is_temporary(error: DBAPIError | PoolTimeout) -> bool:
    if isinstance(error, PoolTimeout | InterfaceError) or error.connection_invalidated:
        return True
    sqlite_code = getattr(error.orig, "sqlite_errorcode", None)
    if sqlite_code is not None:
        return sqlite_code & 0xFF in SQLITE_TEMPORARY
    return error.orig is not None and error.orig.args[:1] in MARIADB_TEMPORARY


def is_undone(error: BaseException | None) -> bool:
    """Whether the database has undone the transaction and would take it if it came again.

    Not where it has waited too long for a lock: who holds that goes on holding it.
    """
    sqlite_code = getattr(error, "sqlite_errorcode", None)
    if sqlite_code is not None:
        return sqlite_code in SQLITE_UNDONE
    return error is not None and error.args[:1] in MARIADB_UNDONE


def is_refused_commit(error: BaseException) -> bool:
    """Whether a COMMIT that failed with this has certainly not been carried out.

    Whatever else ends it leaves that open: a lost connection, a kill, a time limit.
    """
    sqlite_code = getattr(error, "sqlite_errorcode", None)
    if sqlite_code is not None:
        return sqlite_code & 0xFF in SQLITE_REFUSED
    return error.args[:1] in MARIADB_UNDONE


def add_error_handlers(app: FastAPI) -> None:
    # Starlette's registry is typed for `Exception`; each handler names what it takes.
    handlers: dict[Any, Any] = {
        AppError: on_app_error,
        HTTPException: on_http_error,
        RequestValidationError: on_invalid_request,
        DataError: on_unfit_value,
        DBAPIError: on_database_error,
        PoolTimeout: on_database_error,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
