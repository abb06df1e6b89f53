"""How much a worker takes on: what is above that is refused at once, while it is cheap to."""

import logging
import time
from collections import OrderedDict
from types import TracebackType

from starlette.types import Scope

from app.errors import Overloaded
from app.metrics import Metrics
from app.settings import RequestSettings

LATE = 0.003  # s; an event loop that comes later than this has too much to do
LEAST = 4  # requests that are worked on, however late it is: a few keep a CPU busy
BACK_OFF = 0.25
MAX_KNOWN = 10_000  # answers of the cache that a worker keeps in mind
TOO_MUCH = "Too much is asked of this service right now"

log = logging.getLogger("app.workload")


class Workload:
    """Enter it to work: raises Overloaded where too many do already.

    Once it has to refuse, it takes on as few as keep the worker busy: those who share its time
    only wait for each other. How many that are shows in how late the event loop is, as those who
    wait for a slow server do not make it late. The limit falls quickly when it is late, and grows
    step by step else, as TCP's congestion window does.

    An answer from the cache is no work. While all hands are full, only what the cache has
    answered before is let in: to look up the rest, just to refuse it then, would cost more than
    all that can be served.
    """

    def __init__(self, settings: RequestSettings, metrics: Metrics) -> None:
        self.max_in_flight = settings.max_in_flight
        self.max_working = settings.max_working
        self.limit = float(settings.max_working)
        self.metrics = metrics
        self.working = 0
        # Hashes, as paths and queries are as long as clients like.
        self._known: OrderedDict[int, None] = OrderedDict()
        self._refused = False
        self._warn_at = 0.0

    def refuses(self, scope: Scope, in_flight: int) -> bool:
        """Whether to spend no more on this request; health and metrics are always let in."""
        full = self.working >= self.limit
        if in_flight < self.max_in_flight and not full:
            return False
        path: str = scope["path"]
        if path.removeprefix(scope["root_path"]).startswith(("/health", "/metrics")):
            return False
        if in_flight >= self.max_in_flight:
            self._count("in_flight")
            return True
        if hash((path, scope["query_string"])) in self._known:
            return False
        self._count("working")
        return True

    def adapt(self, lag: float) -> None:
        """To be called at a steady pace; `lag`: how late the event loop was, s."""
        if self._refused and lag > LATE:
            self.limit = max(LEAST, self.limit * BACK_OFF)
        else:
            self.limit = min(self.max_working, self.limit + 1)
        self._refused = False

    def remember(self, scope: Scope) -> None:
        """That the cache has answered this."""
        known = hash((scope["path"], scope["query_string"]))
        self._known[known] = None
        self._known.move_to_end(known)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    def __enter__(self) -> None:
        if self.working >= self.limit:
            self._count("working")
            raise Overloaded(TOO_MUCH)
        self.working += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.working -= 1

    def _count(self, reason: str) -> None:
        self._refused = True
        self.metrics.shed[reason].inc()
        if time.monotonic() >= self._warn_at:  # for a line each there is no time now
            self._warn_at = time.monotonic() + 1
            log.warning("Requests are refused: %d are being worked on", self.working)
