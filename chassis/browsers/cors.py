"""Which pages of other origins may call the service from a browser."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

from chassis.browsers.settings import CorsSettings, words
from chassis.problems.response import problem

Fields = Sequence[tuple[bytes, bytes]]

METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
REQUEST_HEADERS = (
    *("Authorization", "Cache-Control", "Content-Type", "Idempotency-Key", "If-Match"),
    *("If-None-Match", "Range", "X-API-Key", "X-Request-ID", "traceparent"),
)
# Besides those that pages may read anyway: Cache-Control, Content-Type, Last-Modified and the like.
EXPOSED = (
    *("Content-Disposition", "Content-Range", "Deprecation", "ETag", "Link", "Location"),
    *("RateLimit", "RateLimit-Policy", "Retry-After", "Server-Timing", "Sunset"),
    *("WWW-Authenticate", "X-Process-Time", "X-Request-ID"),
)
REFUSED = "CORS_ORIGINS does not name this origin, so its pages may not call the API: {}"
VARIES = (b"vary", b"Origin")
MAX_ORIGIN = 300  # bytes; a host has up to 253


class _Route(NamedTuple):
    path: str


PREFLIGHT = _Route("preflight")  # as a label of metrics


class CorsPolicy:
    """Which pages of other origins may read responses: https://fetch.spec.whatwg.org/#cors-protocol

    Where that is the same for all requests, so are the headers: then no cache needs `Vary: Origin`.
    """

    def __init__(self, settings: CorsSettings) -> None:
        origins = [origin.encode() for origin in dict.fromkeys(words(settings.origins))]
        self.enabled = bool(origins or settings.origin_pattern)
        self._origins = frozenset(origins)
        self._pattern = re.compile(settings.origin_pattern.encode() or rb"[^\s\S]")
        self._shared = [(b"access-control-expose-headers", ", ".join(EXPOSED).encode())]
        if settings.credentials:
            self._shared.append((b"access-control-allow-credentials", b"true"))
        self._preflight = {
            "Access-Control-Allow-Methods": METHODS,
            "Access-Control-Allow-Headers": ", ".join([*REQUEST_HEADERS, *words(settings.headers)]),
            "Access-Control-Max-Age": f"{settings.max_age}",
        }
        self.same_for_all: Fields | None = None  # the headers of CORS, if no request changes them
        if not self.enabled:
            self.same_for_all = ()
        elif b"*" in self._origins:
            self.same_for_all = self._allowing(b"*")
        elif len(origins) == 1 and not settings.origin_pattern:
            self.same_for_all = self._allowing(origins[0])

    def headers(self, request: Iterable[tuple[bytes, bytes]]) -> Fields:
        """Of a response; `request`: the headers of its request."""
        if self.same_for_all is not None:
            return self.same_for_all
        for name, value in request:
            if name == b"origin" and self.allows(value):
                return (VARIES, *self._allowing(value))
        return (VARIES,)

    def allows(self, origin: bytes) -> bool:
        if b"*" in self._origins or origin in self._origins:
            return True
        return len(origin) <= MAX_ORIGIN and self._pattern.fullmatch(origin) is not None

    def is_preflight(self, scope: Scope) -> bool:
        """Whether a browser asks if it may send a request."""
        if scope["method"] != "OPTIONS" or not self.enabled:
            return False
        names = {name for name, _ in scope["headers"]}
        return names >= {b"origin", b"access-control-request-method"}

    def preflight(self, scope: Scope) -> Response:
        """The response to such a question, which says what is allowed whatever was asked for."""
        scope["route"] = PREFLIGHT
        origin = Headers(scope=scope)["origin"]
        if not self.allows(origin.encode("latin-1")):
            return problem(403, REFUSED.format(origin), scope)
        return Response(status_code=204, headers=self._preflight)

    def _allowing(self, origin: bytes) -> Fields:
        return ((b"access-control-allow-origin", origin), *self._shared)
