"""The errors of a service: one class for each meaning, each with its HTTP status."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus

RETRY_AFTER = {"Retry-After": "1"}


class AppError(Exception):
    """Becomes a problem response with `status` and `headers`; its text is the `detail`.

    `problem` are the `type` and the `title` where a client has to tell it from others of its
    status.
    """

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    problem: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}

    def __init__(self, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.headers = headers or self.headers


class Unauthorized(AppError):
    status = HTTPStatus.UNAUTHORIZED

    def __init__(self, message: str, *, invalid: bool = False) -> None:
        """`invalid`: a token was sent and is not valid (RFC 6750, section 3)."""
        challenge = 'Bearer error="invalid_token"' if invalid else "Bearer"
        super().__init__(message, {"WWW-Authenticate": challenge})


class Forbidden(AppError):
    status = HTTPStatus.FORBIDDEN


class NotFound(AppError):
    status = HTTPStatus.NOT_FOUND


class Conflict(AppError):
    status = HTTPStatus.CONFLICT


class ClientDisconnected(AppError):
    """The client disconnected before its request was complete; the response cannot be sent."""

    status = HTTPStatus.BAD_REQUEST

    def __init__(self) -> None:
        super().__init__("The body is incomplete")


class ResponseTimeout(Exception):
    """The client has not read its response in time: the server resets the connection."""


class BodyTimeout(AppError):
    status = HTTPStatus.REQUEST_TIMEOUT

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The body was not complete within {seconds:g} s")


class PreconditionFailed(AppError):
    status = HTTPStatus.PRECONDITION_FAILED


class Unavailable(AppError):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    headers = RETRY_AFTER


class Overloaded(Unavailable):
    """Refused because of the load, so that accepted requests stay fast."""

    def __init__(self, message: str, retry_after: int = 1) -> None:
        """`retry_after`: s."""
        super().__init__(message, {"Retry-After": str(retry_after)})


class TooManyRequests(AppError):
    status = HTTPStatus.TOO_MANY_REQUESTS

    def __init__(self, policy: str, retry_after: int) -> None:
        """`retry_after`: s."""
        message = f"Too many {policy}; try again in {retry_after} s"
        super().__init__(message, {"Retry-After": str(retry_after)})


class UnsupportedMedia(AppError):
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE

    def __init__(self, message: str, supported: Iterable[str]) -> None:
        super().__init__(message, {"Accept": ", ".join(supported)})  # RFC 9110, 15.5.16


class Invalid(AppError):
    """A value that passes the schema and not the service; `loc` as in FastAPI's own 422."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY

    def __init__(self, message: str, loc: tuple[str | int, ...]) -> None:
        super().__init__(message)
        self.loc = loc


class UnfitValue(ValueError):
    """A value that a column type refuses; its text is shown to the client."""
