"""The context of the current request, available wherever its code runs."""

import asyncio
import random
import re
from contextvars import ContextVar
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal

from starlette.types import Scope

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
IDEMPOTENT_METHODS = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")
CREDENTIALS = (b"authorization", b"x-api-key")  # headers
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# W3C Trace Context, 3.2: version, trace id, parent id, flags; the ids are not all zeros.
_TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})"
)


@dataclass(slots=True)
class TimeSpent:
    seconds: float = 0.0
    count: int = 0


@dataclass(slots=True)
class RequestContext:
    """One request: its ids, its deadline, the state of its commit, and what took its time.

    `commit` is "sent" while a COMMIT has no reply yet; if the request ends like that, the outcome
    of its transaction is unknown. `spent` has the time of waits for the database, Redis and other
    services by kind, as `Server-Timing` shows it (docs/observability.md).
    """

    id: str
    trace_id: str | None
    scope: Scope
    trace_flags: str = "00"
    deadline: float = inf  # by time.perf_counter()
    has_credentials: bool = False
    has_idempotency_key: bool = False  # and the route supports it
    commit: Literal["none", "sent", "done"] = "none"
    spent: dict[str, TimeSpent] = field(default_factory=dict)
    slowest_statement: str | None = None
    slowest_seconds: float = 0.0
    response_headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    @property
    def route(self) -> str:
        """The template of the route: as a label of metrics it has a bounded number of values."""
        scope = self.scope
        if (route := scope.get("route")) is not None:
            path: str = route.path
            return path
        if "endpoint" not in scope or scope["path_params"]:
            return "unmatched"
        # A mounted application, or a plain route of Starlette, such as /openapi.json.
        mount: str = scope["root_path"].removeprefix(scope.get("app_root_path", ""))
        return mount or scope["path"]

    @property
    def is_repeatable(self) -> bool:
        """Whether it is idempotent (RFC 9110, 9.2.2)."""
        return self.has_idempotency_key or self.scope["method"] in IDEMPOTENT_METHODS

    def own_seconds(self, elapsed: float) -> float:
        """`elapsed` less all waits; 0 where parallel waits add up to more."""
        for spent in self.spent.values():
            elapsed -= spent.seconds
        return max(0.0, elapsed)

    def server_timing(self, elapsed: float) -> bytes:
        """https://www.w3.org/TR/server-timing/, in ms; the times of parallel waits are added up."""
        if not self.spent:
            return b"app;dur=%.2f" % (elapsed * 1000)
        parts = [
            f'{kind};dur={spent.seconds * 1000:.2f};desc="{kind} x{spent.count}"'
            for kind, spent in self.spent.items()
        ]
        parts.append(f"app;dur={self.own_seconds(elapsed) * 1000:.2f}")
        return ", ".join(parts).encode()

    def add_time(self, kind: str, seconds: float, count: int = 1) -> None:
        spent = self.spent.get(kind)
        if spent is None:
            spent = self.spent[kind] = TimeSpent()
        spent.seconds += seconds
        spent.count += count


def context_of(scope: Scope) -> RequestContext:
    """By its headers: the ids are those of the client, or new."""
    id = trace_id = None
    flags = "00"
    has_credentials = False
    for name, value in scope["headers"]:
        if name in CREDENTIALS:
            has_credentials = True
        elif name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            id = value.decode()
        elif name == b"traceparent" and (match := _TRACEPARENT.fullmatch(value)):
            trace_id, flags = match[1].decode(), match[2].decode()
    return RequestContext(
        id or trace_id or f"{random.getrandbits(128):032x}",  # no secret: os.urandom is slower
        trace_id,
        scope,
        trace_flags=flags,
        has_credentials=has_credentials,
    )


# The request of each task: unlike a context variable, another thread can look this up.
InFlight = dict["asyncio.Task[Any] | None", RequestContext]

current_request: ContextVar[RequestContext | None] = ContextVar("current_request", default=None)

# Reads must see all that was committed before then, by `time.monotonic()`. Replicas that may lack
# some of it are not read; READ_PRIMARY stands for all commits, which only the primary has.
READ_ANY = float("-inf")
READ_PRIMARY = float("inf")
read_position: ContextVar[float] = ContextVar("read_position", default=READ_ANY)
