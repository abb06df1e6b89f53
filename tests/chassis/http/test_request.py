"""What every request gets: ids, timing, its line in the log."""

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx2 as httpx
import pytest
from fastapi.responses import JSONResponse
from sqlalchemy import text
from starlette.types import Message

from app.settings import Settings
from chassis.resources import Resources, open_resources
from chassis.telemetry.settings import LogSettings
from tests.conftest import client_of
from tests.service import create_app
from tests.shop import Shop

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("sane", ["abc-123", "A.b_c", "x" * 64])
async def test_sane_request_id_is_kept(client: httpx.AsyncClient, sane: str):
    response = await client.get("/nowhere", headers={"X-Request-ID": sane})

    assert response.headers["X-Request-ID"] == response.json()["request_id"] == sane


@pytest.mark.parametrize("odd", ["a b", "x" * 65, "a\x7f", "{}", ""])
async def test_odd_request_id_is_replaced(client: httpx.AsyncClient, odd: str):
    response = await client.get("/health", headers={"X-Request-ID": odd})

    assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-ID"])


async def test_trace_id_of_the_client_is_the_request_id_where_it_gives_none(
    client: httpx.AsyncClient,
):
    traceparent = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}

    alone = await client.get("/health", headers=traceparent)
    both = await client.get("/health", headers=traceparent | {"X-Request-ID": "mine"})

    assert alone.headers["X-Request-ID"] == TRACE
    assert both.headers["X-Request-ID"] == "mine"


@pytest.mark.parametrize(
    "odd",
    [
        f"00-{TRACE}-b7ad6b7169203331",
        f"ff-{TRACE}-b7ad6b7169203331-01",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-b7ad6b7169203331-01",
        f"00-{TRACE}-b7ad6b7169203331-01-more",
    ],
)
async def test_odd_traceparent_is_no_id(client: httpx.AsyncClient, odd: str):
    response = await client.get("/health", headers={"traceparent": odd})

    assert response.headers["X-Request-ID"].lower() != TRACE


async def test_server_timing_splits_the_time_and_counts(client: httpx.AsyncClient, shop: Shop):
    purchase = await shop.add_purchase()

    await client.get("/v1/purchases")  # a first connection asks the server for its version
    one = timing(await client.get(f"/v1/purchases/{purchase['id']}"))
    ready = timing(await client.get("/health/ready"))
    alive = timing(await client.get("/health"))

    assert one["db"] == "db x1"
    assert ready.keys() == {"db", "cache", "app"}
    assert (ready["db"], ready["cache"]) == ("db x1", "cache x1")
    assert alive.keys() == {"app"}


def timing(response: httpx.Response) -> dict[str, str]:
    """The descriptions of its parts, once it was seen that the times fit the whole."""
    parts = re.findall(r'(\w+);dur=([\d.]+)(?:;desc="([^"]*)")?', response.headers["Server-Timing"])
    whole = float(response.headers["X-Process-Time"]) * 1000
    assert sum(float(dur) for _, dur, _ in parts) == pytest.approx(whole, abs=0.02)
    return {name: description for name, _, description in parts}


async def test_answer_that_is_sent_twice_has_the_headers_of_one_request(
    settings: Settings, resources: Resources
):
    app = create_app(settings)
    constant = JSONResponse("always the same")

    @app.get("/constant")
    async def get_constant() -> JSONResponse:
        return constant

    async with client_of(app, resources) as client:
        responses = [await client.get("/constant") for _ in range(3)]

    assert [len(response.headers.get_list("X-Request-ID")) for response in responses] == [1, 1, 1]


async def test_request_that_is_cancelled_gets_a_problem(settings: Settings, resources: Resources):
    """As uvicorn cancels what still runs when a worker has to go."""
    app = create_app(settings)
    reached = asyncio.Event()

    @app.get("/endless")
    async def endless() -> None:
        reached.set()
        await asyncio.Event().wait()

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/endless"}
    scope |= {"query_string": b"", "headers": [], "root_path": "", "client": None}
    scope["state"] = dict(resources)
    request = asyncio.create_task(app(scope, receive, send))
    await reached.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request

    [start, body] = sent
    assert (start["status"], json.loads(body["body"])["status"]) == (503, 503)
    assert resources["in_flight"] == {}


@pytest.fixture
def logged(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> Callable[..., AbstractAsyncContextManager[tuple[httpx.AsyncClient, list[dict[str, Any]]]]]:
    """A client, with odd routes, of the application with these log settings, and its lines."""

    @asynccontextmanager
    async def run(
        **options: Any,
    ) -> AsyncIterator[tuple[httpx.AsyncClient, list[dict[str, Any]]]]:
        log = LogSettings(format="json", **options)
        changed = settings.model_copy(update={"log": log})
        app = create_app(changed)
        lines: list[dict[str, Any]] = []
        async with open_resources(changed) as resources:

            @app.get("/slow")
            async def slow() -> None:
                async with resources["sessions"].read() as session:
                    await session.execute(text("SELECT 1"))
                    await session.execute(text("SELECT count(*) FROM purchases"))
                await asyncio.sleep(0.6)

            @app.get("/broken")
            async def broken(password: str) -> None:
                raise RuntimeError(f"cannot log in with password={password}")

            async with resources["sessions"].read() as session:
                await session.connection()
            async with client_of(app, resources) as client:
                yield client, lines
        lines += [json.loads(line) for line in capfd.readouterr().out.splitlines()]

    return run


async def test_slow_request_is_a_warning_with_its_split_and_slowest_statement(logged: Any):
    async with logged(slow_request=0.5) as (client, lines):
        await client.get("/slow")
        await client.get("/health")

    [slow, quick] = [line for line in lines if "status" in line]
    assert (slow["level"], slow["message"]) == ("WARNING", "GET /slow 200 was slow")
    assert slow["db_count"] == 2
    assert slow["app_ms"] >= 590
    assert slow["db_ms"] + slow["app_ms"] == pytest.approx(slow["duration_ms"], abs=0.1)
    assert slow["slowest_statement"].startswith("SELECT")
    assert 0 < slow["slowest_statement_ms"] <= slow["db_ms"]
    assert (quick["level"], quick["message"]) == ("INFO", "GET /health 200")


async def test_slow_statement_is_a_warning_without_its_values(logged: Any):
    async with logged(slow_statement=1e-9) as (client, lines):
        await client.get("/v1/purchases/4711")

    slow = [line for line in lines if line["message"] == "Slow statement"]
    [statement] = [line for line in slow if "FROM purchases" in line["statement"]]
    assert statement["level"] == "WARNING"
    assert statement["duration_ms"] > 0
    assert statement["statement"].startswith("SELECT")
    assert "4711" not in statement["statement"]


async def test_sampling_leaves_errors_and_slow_requests_in_the_log(logged: Any):
    async with logged(access_sample=0, slow_request=0.5) as (client, lines):
        await client.get("/health")
        await client.get("/nowhere")
        await client.get("/slow")

    messages = [line["message"] for line in lines if "status" in line]
    assert messages == ["GET /nowhere 404", "GET /slow 200 was slow"]


async def test_sampling_keeps_about_its_part(logged: Any):
    async with logged(access_sample=0.5) as (client, lines):
        for _ in range(400):
            await client.get("/health")

    assert 120 < len(lines) < 280  # eight standard deviations


async def test_request_and_trace_id_are_in_all_its_lines(logged: Any):
    headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "X-Request-ID": "mine"}
    async with logged() as (client, lines):
        await client.get("/broken?password=x", headers=headers)

    assert len(lines) == 2
    assert {(line["request_id"], line["trace_id"]) for line in lines} == {("mine", TRACE)}


async def test_no_secret_is_logged(logged: Any, settings: Settings):
    secret = secrets.token_hex(16)
    async with logged(level="DEBUG") as (client, lines):
        await client.get(f"/broken?password={secret}")
        await client.post("/v1/purchases", json={}, headers={"Authorization": f"Bearer {secret}"})
        await client.get("/metrics", headers={"Authorization": f"Bearer {secret}"})
        await client.get(f"/v1/purchases?token={secret}")

    assert len(lines) >= 5
    assert secret not in json.dumps(lines)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/purchases"),
        ("GET", "/v1/purchases/0"),
        ("POST", "/v1/purchases"),
        ("GET", "/nowhere"),
        ("GET", "/docs"),
        ("GET", "/"),
        ("GET", "/docs/assets/swagger-ui.css"),
        ("GET", "/openapi.json"),
        ("GET", "/files/a"),
        ("GET", "/health"),
    ],
)
async def test_no_response_is_sniffed(client: httpx.AsyncClient, method: str, path: str):
    response = await client.request(method, path)

    assert response.headers.get_list("X-Content-Type-Options") == ["nosniff"]


async def test_refusal_in_an_overload_is_not_sniffed(
    client: httpx.AsyncClient, resources: Resources
):
    resources["admission"].max_in_flight = 0

    response = await client.get("/v1/purchases")

    assert response.status_code == 503
    assert response.headers.get_list("X-Content-Type-Options") == ["nosniff"]


@pytest.mark.parametrize("end", ["%0a", "%0A", "%0d", "%00", "%7f", "%c2%85"])
@pytest.mark.parametrize(
    "path", ["/v1/purchases", "/v1/purchases/1", "/health", "/docs", "/docs/assets/swagger-ui.css"]
)
async def test_path_with_a_control_character_is_no_other_path(
    client: httpx.AsyncClient, path: str, end: str
):
    for method in ("GET", "HEAD", "POST"):
        response = await client.request(method, path + end)

        assert response.status_code == 404
        if method != "HEAD":
            assert response.json()["instance"] != path


@pytest.mark.parametrize(
    "path", ["/v1/purchases", "/docs", "/openapi.json", "/", "/healthy", "/files"]
)
async def test_metrics_port_shows_nothing_of_the_api(
    resources: Resources, settings: Settings, path: str
):
    settings.metrics.port = 9000
    async with client_of(create_app(settings), resources) as client:
        hidden, *shown = [
            await client.get(f"http://test:9000{path}")
            for path in (path, "/metrics", "/health", "/health/ready")
        ]

    assert hidden.status_code == 404
    assert hidden.headers["Content-Type"] == "application/problem+json"
    assert [response.status_code for response in shown] == [200, 200, 200]
