"""Load shedding: a worker refuses at once what it cannot do in time."""

import logging
import time
from collections import OrderedDict
from types import TracebackType

from starlette.types import Message, Receive, Scope

from chassis.errors import Overloaded
from chassis.limits.incoming_bodies import IncomingBodies
from chassis.limits.settings import RequestSettings
from chassis.telemetry.metrics import Metrics, ShedMetrics

MAX_LAG = 0.003  # s; an event loop that is later than this is overloaded
MIN_CONCURRENCY = 4  # keeps a CPU busy
DECREASE_FACTOR = 0.25
MAX_HITS = 10_000  # URLs
OVERLOADED = "The service is overloaded; try again shortly"

log = logging.getLogger("app.admission")


class AdmissionController:
    """Adaptive concurrency limit of one worker.

    `with` it to run a handler: raises Overloaded if `limit` handlers are *working*. The limit
    adapts to the lag of the event loop (additive increase, multiplicative decrease, as TCP's
    congestion window): handlers that wait for a slow server cause no lag, those that compete for
    the CPU do. A cache hit runs no handler. While the limit is reached, `should_shed` only lets
    URLs pass that recently were hits, because looking up all others would cost more than serving
    these. docs/decisions/0009-overload.md has the argument and the measurements.
    """

    def __init__(self, settings: RequestSettings, metrics: Metrics) -> None:
        self.max_in_flight = settings.max_in_flight
        self.max_working = settings.max_working
        self.limit = float(settings.max_working)
        self.shed = metrics.of(ShedMetrics).shed
        self.working = 0
        self.bodies = IncomingBodies(settings, self._count)
        # Hashes, as the length of paths and queries is up to clients.
        self._hits: OrderedDict[int, None] = OrderedDict()
        self._has_shed = False
        self._warn_at = 0.0

    def should_shed(self, scope: Scope, in_flight: int) -> bool:
        """Whether to refuse this request before it costs more; never for health and metrics."""
        is_full = self.working >= self.limit
        in_flight -= self.bodies.waiting
        if in_flight < self.max_in_flight and not is_full:
            return False
        path: str = scope["path"]
        if f"{path.removeprefix(scope['root_path'])}/".startswith(("/health/", "/metrics/")):
            return False
        if in_flight >= self.max_in_flight:
            self._count("in_flight")
            return True
        if hash((path, scope["query_string"])) in self._hits:
            return False
        self._count("working")
        return True

    def adjust(self, lag: float) -> None:
        """Adapt the limit; to be called periodically. `lag`: delay of the event loop, s."""
        if self._has_shed and lag > MAX_LAG:
            least = min(MIN_CONCURRENCY, self.max_working)
            self.limit = max(least, self.limit * DECREASE_FACTOR)
        else:
            self.limit = min(self.max_working, self.limit + 1)
        self._has_shed = False

    def record_hit(self, scope: Scope) -> None:
        url = hash((scope["path"], scope["query_string"]))
        self._hits[url] = None
        self._hits.move_to_end(url)
        if len(self._hits) > MAX_HITS:
            self._hits.popitem(last=False)

    def release_while_receiving(self, receive: Receive) -> Receive:
        """A `receive` for a handler that streams its body: it does not count while it waits.

        Afterwards it counts again even above the limit, so the number of handlers that stream
        needs a limit of its own.
        """

        async def receive_released() -> Message:
            self.working -= 1
            self.bodies.waiting += 1
            try:
                return await receive()
            finally:
                self.bodies.waiting -= 1
                self.working += 1

        return receive_released

    def __enter__(self) -> None:
        if self.working >= self.limit:
            self._count("working")
            raise Overloaded(OVERLOADED)
        self.working += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.working -= 1

    def _count(self, reason: str) -> None:
        self._has_shed = True
        self.shed[reason].inc()
        if time.monotonic() >= self._warn_at:  # under overload one line a second is enough
            self._warn_at = time.monotonic() + 1
            log.warning("Overloaded, requests are refused; %d handlers are running", self.working)
