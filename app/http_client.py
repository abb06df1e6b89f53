"""The client of one worker for other services: it waits, tries again and gives up within limits."""

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from itertools import count
from math import inf

import httpx2
from opentelemetry.propagate import inject

from app.circuit_breaker import CircuitBreaker
from app.metrics import Metrics
from app.models.base import now
from app.request_context import current_request
from app.settings import HttpSettings
from app.tracing import Tracing
from app.version import VERSION

IDEMPOTENT = {"GET", "HEAD", "OPTIONS", "PUT", "DELETE"}  # RFC 9110, 9.2.2
AGAIN = {429, 502, 503, 504}  # what may be another answer soon
FAILED = {500, 502, 503, 504}
BUDGET = 10  # retries at once
REFILL = 0.1  # retries for each request: a service that is down gets a tenth more, not a multiple
MARGIN = 0.1  # s; of a request's time, for the answer that says what was not to be had


class GaveUp(httpx2.TimeoutException):
    """The deadline of the exchange, or of the request that it is for, has passed."""


class CircuitOpen(httpx2.TransportError):
    """The server was not asked, as it has failed again and again."""


class Refused(httpx2.TransportError):
    """An answer that is longer than HTTP_MAX_RESPONSE, or compressed."""


class Server:
    """What is known of one host and port."""

    def __init__(self, name: str, settings: HttpSettings) -> None:
        self.name = name
        self.breaker = CircuitBreaker(settings.breaker_failures, settings.breaker_open_for)
        self._budget = float(BUDGET)

    def asked(self) -> None:
        self._budget = min(BUDGET, self._budget + REFILL)

    def take_retry(self) -> bool:
        if self._budget < 1:
            return False
        self._budget -= 1
        return True


@dataclass(frozen=True)
class Deadline:
    """By time.perf_counter(). `inherited`: the request at hand has less time than was wanted."""

    at: float
    inherited: bool

    @property
    def left(self) -> float:
        return self.at - time.perf_counter()


class LimitedTransport(httpx2.AsyncBaseTransport):
    """Between `httpx2.AsyncClient` and its connections; it gives answers that were read whole.

    `extensions={"deadline": 0.8}` of a request is the longest time for it in place of HTTP_TIMEOUT,
    in s, from its beginning to the end of its body, retries included.
    """

    def __init__(
        self, inner: httpx2.AsyncBaseTransport, settings: HttpSettings, metrics: Metrics
    ) -> None:
        self.inner = inner
        self.settings = settings
        self.metrics = metrics
        self.tracing = Tracing()
        self._servers: dict[str, Server] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Raises httpx2.TransportError."""
        deadline = self._deadline(request)
        name = request.url.netloc.decode("ascii")
        server = self._servers.get(name)
        if server is None:
            server = self._servers[name] = Server(name, self.settings)
        server.asked()
        for attempt in count(1):
            try:
                response = await self._try(request, server, deadline)
            except (CircuitOpen, GaveUp, Refused, httpx2.PoolTimeout):
                raise
            except httpx2.TransportError:
                if not await self._is_repeated(request, attempt, server, deadline):
                    raise
            else:
                if response.status_code not in AGAIN or not await self._is_repeated(
                    request, attempt, server, deadline, _retry_after(response)
                ):
                    return response
        raise AssertionError  # count() has no end

    async def aclose(self) -> None:
        await self.inner.aclose()

    async def _try(
        self, request: httpx2.Request, server: Server, deadline: Deadline
    ) -> httpx2.Response:
        if deadline.left <= 0:
            raise GaveUp(f"No time is left to ask {server.name}", request=request)
        turn = server.breaker.enter()
        if turn is None:
            self._observe(server, "refused", 0)
            raise CircuitOpen(f"{server.name} has failed again and again", request=request)
        timeouts = request.extensions["timeout"]
        # Else it would look as if the server was late, when it was not even asked.
        timeouts["pool"] = min(timeouts["pool"] or inf, deadline.left / 2)
        start = time.perf_counter()
        result = "cancelled"
        try:
            with self.tracing.http(request.method, server.name):
                _pass_on(request)
                async with asyncio.timeout(deadline.left):
                    response = await self._exchange(request)
            result = f"{response.status_code // 100}xx"
        except TimeoutError:
            result = "cut short" if deadline.inherited else "timeout"
            raise GaveUp(f"{server.name} did not answer in time", request=request) from None
        except httpx2.PoolTimeout:
            result = "crowded"  # our own limit, and no fault of the server's
            raise
        except httpx2.TransportError as error:
            result = "timeout" if isinstance(error, httpx2.TimeoutException) else "failed"
            raise
        finally:
            if result == "cancelled" and deadline.left <= 0 and not deadline.inherited:
                result = "timeout"  # whoever asked was only quicker to give up
            self._observe(server, result, time.perf_counter() - start)
            if result in ("cancelled", "crowded", "cut short"):
                server.breaker.left(turn)
            elif result in ("timeout", "failed") or response.status_code in FAILED:
                server.breaker.failed(turn)
            else:
                server.breaker.succeeded(turn)
            self.metrics.upstream_open.labels(server.name).set(server.breaker.state != "closed")
        return response

    async def _exchange(self, request: httpx2.Request) -> httpx2.Response:
        response = await self.inner.handle_async_request(request)
        try:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise Refused("The answer is compressed, which nobody has asked for")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > self.settings.max_response:
                    raise Refused(f"The answer has more than {self.settings.max_response} bytes")
        finally:
            await response.aclose()
        stream = httpx2.ByteStream(bytes(body))
        return httpx2.Response(response.status_code, headers=response.headers, stream=stream)

    async def _is_repeated(
        self,
        request: httpx2.Request,
        attempt: int,
        server: Server,
        deadline: Deadline,
        wait: float | None = None,
    ) -> bool:
        """Whether there will be another attempt, after this has waited for it."""
        if wait is None:
            # Exponential, with jitter: clients that failed together do not come back together.
            backoff = self.settings.backoff * 2.0 ** (attempt - 1)
            wait = backoff * random.uniform(0.5, 1.5)  # noqa: S311 - chance, not a secret
        may_be_repeated = request.method in IDEMPOTENT or "Idempotency-Key" in request.headers
        if (
            not may_be_repeated
            or not isinstance(request.stream, httpx2.ByteStream)  # else it has been read
            or attempt > self.settings.retries
            or deadline.left <= wait
            or server.breaker.state != "closed"
            or not server.take_retry()
        ):
            return False
        self.metrics.upstream_retries.labels(server.name).inc()
        await asyncio.sleep(wait)
        return True

    def _deadline(self, request: httpx2.Request) -> Deadline:
        wanted = request.extensions.get("deadline", self.settings.timeout)
        wanted_at = time.perf_counter() + wanted
        if (context := current_request.get()) is None:
            return Deadline(wanted_at, inherited=False)
        left_at = context.deadline - MARGIN
        return Deadline(min(wanted_at, left_at), inherited=left_at < wanted_at)

    def _observe(self, server: Server, result: str, seconds: float) -> None:
        self.metrics.upstream_duration.labels(server.name, result).observe(seconds)
        if (context := current_request.get()) is not None:
            context.spend("upstream", seconds)


def _pass_on(request: httpx2.Request) -> None:
    """Who reads the log of the other side finds the request by the same ids."""
    if (context := current_request.get()) is not None:
        request.headers.setdefault("X-Request-ID", context.id)
        if context.trace_id is not None:
            # W3C Trace Context; where there is a span, `inject` names that one.
            span = f"{random.getrandbits(64):016x}"
            trace = f"00-{context.trace_id}-{span}-{context.trace_flags}"
            request.headers["traceparent"] = trace
    inject(request.headers)


def _retry_after(response: httpx2.Response) -> float | None:
    """RFC 9110, 10.2.3: in seconds, or until a date; in s."""
    value = response.headers.get("Retry-After", "")
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - now()).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None


@cache
def _certificates() -> ssl.SSLContext:
    """Whom to trust: to read that takes longer than to open everything else."""
    return httpx2.create_ssl_context()


@asynccontextmanager
async def open_http_client(
    settings: HttpSettings, metrics: Metrics
) -> AsyncIterator[httpx2.AsyncClient]:
    """One for the whole worker, so that connections are kept and limits hold."""
    limits = httpx2.Limits(
        max_connections=settings.max_connections,
        max_keepalive_connections=settings.max_connections,
        keepalive_expiry=settings.keepalive,
    )
    timeout = httpx2.Timeout(
        connect=settings.connect_timeout,
        read=settings.read_timeout,
        write=settings.write_timeout,
        pool=settings.pool_timeout,
    )
    inner = httpx2.AsyncHTTPTransport(verify=_certificates(), limits=limits)
    transport = LimitedTransport(inner, settings, metrics)
    async with httpx2.AsyncClient(
        transport=transport,
        timeout=timeout,
        # Compressed, a small body may be a large one.
        headers={"User-Agent": f"books/{VERSION}", "Accept-Encoding": "identity"},
        # One client asks for everybody: what a server has set for one is not for others.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        trust_env=False,
    ) as client:
        yield client
