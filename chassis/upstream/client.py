import random
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from math import inf

import httpx2 as httpx
from opentelemetry.propagate import inject

from chassis.request_context import current_request
from chassis.tasks.timeout import Timeout
from chassis.telemetry.metrics import Metrics
from chassis.telemetry.tracing import Tracing
from chassis.upstream.circuit_breaker import CircuitBreaker
from chassis.upstream.connections import Connections
from chassis.upstream.limits import CircuitOpen, Deadline, DeadlineExceeded, ResponseRejected
from chassis.upstream.metrics import UpstreamMetrics
from chassis.upstream.retries import Retries
from chassis.upstream.settings import HttpSettings

# Failures for the circuit breaker. What is retried differs: 429 is, 500 is not (retries.py).
FAILED_STATUSES = {500, 502, 503, 504}


class HostState:
    def __init__(self, name: str, settings: HttpSettings, metrics: UpstreamMetrics) -> None:
        self.name = name
        self.breaker = CircuitBreaker(settings.breaker_failures, settings.breaker_open_for)
        self.retries = Retries(settings, self.breaker, metrics.upstream_retries.labels(name))


class LimitedTransport(httpx.AsyncBaseTransport):
    """A transport for `httpx.AsyncClient` that bounds time, retries and size of every exchange.

    Each exchange has a *deadline*: HTTP_TIMEOUT, or the request's `extensions={"deadline": 0.8}`
    (s from now), and at the latest just before that of the request being served. It includes
    retries and the body, which is read whole. Retries are limited by a *retry budget* for each
    host, and a host that keeps failing is not asked at all for a while (*circuit breaker*). Meant
    for a fixed set of hosts, as each has its state and metrics for good. Errors are
    httpx.TransportError: DeadlineExceeded, CircuitOpen, ResponseRejected besides httpx's own. See
    docs/upstream.md.
    """

    def __init__(self, connections: Connections, settings: HttpSettings, metrics: Metrics) -> None:
        self.connections = connections
        self.settings = settings
        self.metrics = metrics.of(UpstreamMetrics)
        self.tracing = Tracing()
        self._hosts: dict[str, HostState] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        deadline = Deadline.within(request.extensions.get("deadline", self.settings.timeout))
        name = request.url.netloc.decode("ascii")
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = HostState(name, self.settings, self.metrics)
        attempt = partial(self._attempt, request, host, deadline)
        return await host.retries.run(attempt, request, deadline)

    async def aclose(self) -> None:
        await self.connections.aclose()

    async def _attempt(
        self, request: httpx.Request, host: HostState, deadline: Deadline
    ) -> httpx.Response:
        if deadline.remaining <= 0:
            raise DeadlineExceeded(f"No time is left for a request to {host.name}", request=request)
        generation = host.breaker.enter()
        if generation is None:
            self._observe(host, "refused", 0)
            raise CircuitOpen(f"{host.name} keeps failing", request=request)
        timeouts = request.extensions["timeout"]
        # The wait for a connection ends first: a missed deadline would count against the host.
        timeouts["pool"] = min(timeouts["pool"] or inf, deadline.remaining / 2)
        start = time.perf_counter()
        result = "cancelled"
        try:
            with self.tracing.http(request.method, host.name):
                _propagate_ids(request)
                with Timeout(deadline.remaining):
                    response = await self.connections.exchange(request)
            result = f"{response.status_code // 100}xx"
        except TimeoutError:
            result = "cut short" if deadline.inherited else "timeout"
            raise DeadlineExceeded(f"{host.name} timed out", request=request) from None
        except httpx.PoolTimeout:
            result = "crowded"  # our own limit, not the server's failure
            raise
        except (ResponseRejected, httpx.UnsupportedProtocol, httpx.LocalProtocolError):
            result = "rejected"  # by us: the host is alive, or was never asked
            raise
        except httpx.TransportError as error:
            result = "timeout" if isinstance(error, httpx.TimeoutException) else "failed"
            raise
        finally:
            if result == "cancelled" and deadline.remaining <= 0 and not deadline.inherited:
                result = "timeout"  # a timeout of the caller, set to the same time, came first
            self._observe(host, result, time.perf_counter() - start)
            if result in ("cancelled", "crowded", "cut short", "rejected"):
                host.breaker.abandoned(generation)
            elif result in ("timeout", "failed") or response.status_code in FAILED_STATUSES:
                host.breaker.failed(generation)
            else:
                host.breaker.succeeded(generation)
            self.metrics.upstream_open.labels(host.name).set(host.breaker.state != "closed")
        return response

    def _observe(self, host: HostState, result: str, seconds: float) -> None:
        self.metrics.upstream_duration.labels(host.name, result).observe(seconds)
        if (context := current_request.get()) is not None:
            context.add_time("upstream", seconds)


def _propagate_ids(request: httpx.Request) -> None:
    """Send request and trace ids along, so that logs of both services can be joined."""
    if (context := current_request.get()) is not None:
        request.headers.setdefault("X-Request-ID", context.id)
        if context.trace_id is not None:
            # W3C Trace Context; with tracing on, `inject` replaces this by the current span.
            span = f"{random.getrandbits(64):016x}"
            trace = f"00-{context.trace_id}-{span}-{context.trace_flags}"
            request.headers["traceparent"] = trace
    inject(request.headers)


@cache
def _certificates() -> ssl.SSLContext:
    """Cached, as reading the trusted certificates takes longer than all else at start."""
    return httpx.create_ssl_context()


@asynccontextmanager
async def open_http_client(
    settings: HttpSettings, user_agent: str, metrics: Metrics
) -> AsyncIterator[httpx.AsyncClient]:
    """One client for the whole worker, so that connections are reused and limits hold."""
    timeout = httpx.Timeout(
        connect=settings.connect_timeout,
        read=settings.read_timeout,
        write=None,  # the deadline bounds it
        pool=settings.pool_timeout,
    )
    connections = Connections(settings, _certificates())
    transport = LimitedTransport(connections, settings, metrics)
    async with httpx.AsyncClient(
        transport=transport,
        timeout=timeout,
        # A small compressed body may expand to a huge one.
        headers={"User-Agent": user_agent, "Accept-Encoding": "identity"},
        # All requests share this client: cookies must not pass from one to another.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        trust_env=False,
    ) as client:
        yield client
