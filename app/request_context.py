"""What is known about the request at hand, wherever its code runs."""

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal

from starlette.types import Scope

IDEMPOTENT_METHODS = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")


@dataclass(slots=True)
class Spent:
    seconds: float = 0.0
    count: int = 0


@dataclass(slots=True)
class RequestContext:
    """One request: its ids, and what its time was spent on besides our own code."""

    id: str
    trace_id: str | None
    scope: Scope
    trace_flags: str = "00"
    deadline: float = inf  # by time.perf_counter()
    has_credentials: bool = False
    has_idempotency_key: bool = False  # and a route that honours it
    commit: Literal["none", "sent", "done"] = "none"  # "sent": what came of it is not known
    spent: dict[str, Spent] = field(default_factory=dict)
    slowest_statement: str | None = None
    slowest_seconds: float = 0.0
    answer_headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    @property
    def route(self) -> str:
        """The template of its route, so that labels and names of it are bounded."""
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
        """Whether it has the same effect once or twice (RFC 9110, 9.2.2)."""
        return self.has_idempotency_key or self.scope["method"] in IDEMPOTENT_METHODS

    def own_seconds(self, elapsed: float) -> float:
        """What is left of `elapsed` for our own code; none where more was done in parallel."""
        return max(0.0, elapsed - sum(spent.seconds for spent in self.spent.values()))

    def spend(self, kind: str, seconds: float, count: int = 1) -> None:
        spent = self.spent.get(kind)
        if spent is None:
            spent = self.spent[kind] = Spent()
        spent.seconds += seconds
        spent.count += count


# Which request each task serves: a thread can look this up, unlike a context variable.
InFlight = dict["asyncio.Task[Any] | None", RequestContext]

current_request: ContextVar[RequestContext | None] = ContextVar("current_request", default=None)

# Set where a read must see all that is committed: what a replica shows may be a little older.
read_primary: ContextVar[bool] = ContextVar("read_primary", default=False)
