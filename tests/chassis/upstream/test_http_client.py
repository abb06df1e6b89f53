"""The client for other services, against a real server in a process of its own."""

import asyncio
import gzip
import json
import re
import time

import httpx2 as httpx
import pytest

from chassis.request_context import RequestContext, current_request
from chassis.upstream.circuit_breaker import CircuitBreaker
from chassis.upstream.client import LimitedTransport
from chassis.upstream.limits import CircuitOpen, DeadlineExceeded, ResponseRejected
from chassis.upstream.settings import HttpSettings
from tests.chassis.upstream.exchange import client_with, server
from tests.process import free_port
from tests.upstream import Upstream


async def test_no_more_connections_than_configured(upstream: Upstream):
    upstream.behave("alpha", latency=0.05)
    async with client_with(max_connections=5, pool_timeout=20) as client:
        responses = await asyncio.gather(*(client.get(upstream.url("alpha")) for _ in range(100)))

    assert {response.status_code for response in responses} == {200}
    assert upstream.at_once("alpha") == 5


@pytest.mark.parametrize(
    ("method", "headers", "expected"),
    [("GET", {}, 3), ("PUT", {}, 3), ("POST", {}, 1), ("POST", {"Idempotency-Key": "k"}, 3)],
)
async def test_only_what_is_idempotent_is_repeated(
    method: str, headers: dict[str, str], expected: int
):
    asked = []

    async def fail(first: str, _: dict[str, str]) -> bytes:
        asked.append(first)
        return b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"

    async with client_with(retries=2, breaker_failures=100) as client, server(fail) as url:
        response = await client.request(method, url, content=b"body", headers=headers)

    assert response.status_code == 503
    assert len(asked) == expected


async def test_retry_waits_as_long_as_the_server_wants():
    times = []

    async def fail_once(*_: object) -> bytes:
        times.append(time.monotonic())
        if len(times) > 1:
            return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        return b"HTTP/1.1 503 No\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"

    async with client_with() as client, server(fail_once) as url:
        response = await client.get(url)

    assert response.status_code == 200
    assert times[1] - times[0] >= 1


@pytest.mark.parametrize("value", ["\xb2", "Fri, 31 Dec 99999 23:59:59 GMT", "soon", ""])
async def test_odd_retry_after_is_none(value: str):
    async def fail(*_: object) -> bytes:
        head = f"HTTP/1.1 503 No\r\nRetry-After: {value}\r\nContent-Length: 0\r\n\r\n"
        return head.encode("latin-1")

    async with client_with() as client, server(fail) as url:
        assert (await client.get(url)).status_code == 503


async def test_cancelled_wait_leaves_the_connection_to_others(upstream: Upstream):
    upstream.behave("alpha", errors=1, retry_after=5)
    async with client_with(max_connections=1, timeout=20) as client:
        waiting = asyncio.create_task(client.get(upstream.url("alpha")))
        while not upstream.requests("alpha"):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)  # it waits for the retry now
        waiting.cancel()
        upstream.behave("alpha")
        response = await client.get(upstream.url("alpha"))

    assert response.status_code == 200


async def test_cookies_of_a_server_are_not_kept():
    sent = []

    async def set_cookie(_: str, headers: dict[str, str]) -> bytes:
        sent.append(headers.get("cookie"))
        return b"HTTP/1.1 200 OK\r\nSet-Cookie: who=somebody\r\nContent-Length: 0\r\n\r\n"

    async with client_with() as client, server(set_cookie) as url:
        for _ in range(2):
            await client.get(url)

    assert sent == [None, None]


async def test_retries_have_a_budget(upstream: Upstream):
    upstream.behave("alpha", errors=1)
    async with client_with(retries=2, breaker_failures=10_000) as client:
        for _ in range(50):
            await client.get(upstream.url("alpha"))

    assert 50 + 10 <= upstream.requests("alpha") <= 50 + 10 + 50 / 10


async def test_circuit_opens_then_one_probe_closes_it(upstream: Upstream):
    upstream.behave("alpha", errors=1)
    async with client_with(retries=2, breaker_failures=3, breaker_open_for=600) as client:
        first = await client.get(upstream.url("alpha"))
        start = time.process_time()
        for _ in range(20):
            with pytest.raises(CircuitOpen):
                await client.get(upstream.url("alpha"))
        spent = (time.process_time() - start) / 20
        asked = upstream.requests("alpha")
        upstream.behave("alpha", latency=0.2)
        breaker_of(client)._opened_at -= 600
        results = await asyncio.gather(
            *(client.get(upstream.url("alpha")) for _ in range(10)), return_exceptions=True
        )
        after = await client.get(upstream.url("alpha"))

    assert (first.status_code, asked) == (503, 3)
    assert spent < 0.005
    assert sum(isinstance(result, httpx.Response) for result in results) == 1
    assert sum(isinstance(result, CircuitOpen) for result in results) == 9
    assert after.status_code == 200


def breaker_of(client: httpx.AsyncClient) -> CircuitBreaker:
    """Of the one server that it has asked."""
    transport = client._transport
    assert isinstance(transport, LimitedTransport)
    [known] = transport._hosts.values()
    return known.breaker


def test_probe_that_fails_opens_the_circuit_for_another_while():
    clock = 0.0
    breaker = CircuitBreaker(failures=2, open_for=10, clock=lambda: clock)

    def enter() -> int:
        generation = breaker.enter()
        assert generation is not None
        return generation

    breaker.failed(enter())
    assert breaker.state == "closed"
    breaker.failed(enter())
    assert breaker.enter() is None
    clock = 10
    breaker.failed(enter())
    clock = 19
    assert breaker.enter() is None
    clock = 20
    probe = enter()
    assert breaker.enter() is None  # one at a time
    breaker.abandoned(probe)
    breaker.succeeded(enter())
    assert breaker.state == "closed"


def test_late_results_of_old_attempts_do_not_count():
    clock = 0.0
    breaker = CircuitBreaker(failures=1, open_for=10, clock=lambda: clock)
    slow, slower, fast = (breaker.enter() for _ in range(3))
    assert slow is not None
    assert slower is not None
    assert fast is not None

    breaker.failed(fast)
    breaker.succeeded(slow)
    assert str(breaker.state) == "open"
    clock = 10
    assert breaker.enter() is not None
    breaker.abandoned(slower)
    breaker.failed(slower)
    assert str(breaker.state) == "half-open"
    assert breaker.enter() is None


async def test_server_that_is_not_there_fails_at_once():
    async with client_with(retries=1) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"http://127.0.0.1:{free_port()}")


async def test_hanging_server_is_given_up_by_the_deadline_of_the_request(upstream: Upstream):
    upstream.behave("alpha", latency=60)
    async with client_with(breaker_failures=1) as client:
        for _ in range(2):  # that there is no time is no fault of the server's
            request = RequestContext("id", None, {}, deadline=time.perf_counter() + 0.4)
            token = current_request.set(request)
            with pytest.raises(DeadlineExceeded):
                await client.get(upstream.url("alpha"))
            current_request.reset(token)
            assert request.spent["upstream"].count == 1
        assert breaker_of(client).state == "closed"


async def test_body_that_does_not_end_opens_the_circuit():
    async def drip(*_: object) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 10

    async with client_with(timeout=0.3, breaker_failures=2) as client, server(drip) as url:
        for _ in range(2):
            with pytest.raises(DeadlineExceeded):
                await client.get(url)
        with pytest.raises(CircuitOpen):
            await client.get(url)


async def test_body_that_is_too_large_or_compressed_is_refused(upstream: Upstream):
    upstream.behave("alpha", size=200_000)

    async def compressed(*_: object) -> bytes:
        body = gzip.compress(b"x" * 1000)
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
        return head % len(body) + body

    async with client_with(max_response=100_000) as client, server(compressed) as url:
        for target in (upstream.url("alpha"), url):
            for _ in range(HttpSettings().breaker_failures + 1):  # no failures of the server
                with pytest.raises(ResponseRejected):
                    await client.get(target)


async def test_ids_of_the_request_are_passed_on():
    async def echo(_: str, headers: dict[str, str]) -> bytes:
        body = json.dumps(headers).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    trace_id = "0af7651916cd43dd8448eb211c80319c"
    token = current_request.set(RequestContext("an-id", trace_id, {}, trace_flags="01"))
    async with client_with() as client, server(echo) as url:
        headers = (await client.get(url)).json()
    current_request.reset(token)

    assert headers["x-request-id"] == "an-id"
    assert re.fullmatch(f"00-{trace_id}-[0-9a-f]{{16}}-01", headers["traceparent"])
    assert headers["accept-encoding"] == "identity"
