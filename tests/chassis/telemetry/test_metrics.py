"""What `/metrics` says of one process; tests/chassis/server/test_workers.py asks several."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2 as httpx
import pytest
from fastapi import BackgroundTasks
from prometheus_client.samples import Sample
from starlette.responses import PlainTextResponse, StreamingResponse

from app.about import VERSION
from app.settings import Settings
from chassis.redis.settings import RedisSettings
from chassis.resources import Resources, declare_metrics, open_resources
from chassis.telemetry.settings import LogSettings, MetricsSettings
from tests.conftest import client_of
from tests.metrics import scrape, total
from tests.process import ROOT
from tests.service import create_app
from tests.shop import Shop

REQUESTS = "http_request_duration_seconds_count"


async def test_request_counts_under_its_template_and_status_class(
    client: httpx.AsyncClient, shop: Shop
):
    purchase = await shop.add_purchase()

    await client.get(f"/v1/purchases/{purchase['id']}")
    await client.get("/v1/purchases/987654321")
    await client.get("/v1/purchases/seven")
    await client.put("/v1/purchases/7")

    samples = await scrape(client)
    labels = {"route": "/v1/purchases/{purchase_id}"}
    assert total(samples, REQUESTS, method="GET", status="2xx", **labels) == 1
    assert total(samples, REQUESTS, method="GET", status="4xx", **labels) == 2
    assert total(samples, REQUESTS, method="PUT", status="4xx", **labels) == 1
    assert total(samples, REQUESTS, method="POST", route="/v1/purchases", status="2xx") == 1


async def test_document_and_assets_count_under_their_paths(client: httpx.AsyncClient):
    await client.get("/openapi.json")
    await client.get("/docs/assets/swagger-ui.css")
    await client.get("/docs/assets/nothing")

    samples = await scrape(client)
    assert total(samples, REQUESTS, route="/openapi.json", status="2xx") == 1
    assert total(samples, REQUESTS, route="/docs/assets", status="2xx") == 1
    assert total(samples, REQUESTS, route="/docs/assets", status="4xx") == 1


async def test_values_in_the_path_of_a_mount_are_no_labels(
    settings: Settings, resources: Resources
):
    app = create_app(settings)
    app.mount("/tenants/{tenant}", PlainTextResponse("hello"))
    async with client_of(app, resources) as client:
        for n in range(3):
            assert (await client.get(f"/tenants/{n}/")).status_code == 200
        samples = await scrape(client)

    assert total(samples, REQUESTS, route="unmatched", status="2xx") == 3


async def test_answer_that_breaks_off_is_an_error(settings: Settings, resources: Resources):
    app = create_app(settings)

    async def half() -> AsyncIterator[str]:
        yield "half"
        raise RuntimeError("no more")

    @app.get("/half")
    async def get_half() -> StreamingResponse:
        return StreamingResponse(half())

    async with client_of(app, resources) as client:
        with pytest.raises(RuntimeError, match="no more"):
            await client.get("/half")
        samples = await scrape(client)

    assert total(samples, REQUESTS, route="/half", status="5xx") == 1
    assert total(samples, REQUESTS, route="/half") == 1


async def test_background_task_is_not_part_of_the_duration(
    settings: Settings, resources: Resources
):
    app = create_app(settings)

    async def work() -> None:
        begun.append(time.perf_counter())
        await asyncio.sleep(0.1)

    @app.get("/later")
    async def later(tasks: BackgroundTasks) -> None:
        tasks.add_task(work)

    async with client_of(app, resources) as client:
        begun = [time.perf_counter()]
        await client.get("/later")
        samples = await scrape(client)

    answered_within = begun[1] - begun[0]
    assert total(samples, "http_request_duration_seconds_sum", route="/later") < answered_within


async def test_background_task_that_fails_does_not_change_the_answer(
    settings: Settings, resources: Resources
):
    app = create_app(settings)

    async def fail() -> None:
        raise RuntimeError("too late to tell")

    @app.get("/failing-later")
    async def failing_later(tasks: BackgroundTasks) -> None:
        tasks.add_task(fail)

    async with client_of(app, resources) as client:
        with pytest.raises(RuntimeError, match="too late"):
            await client.get("/failing-later")
        samples = await scrape(client)

    assert total(samples, REQUESTS, route="/failing-later", status="2xx") == 1


async def test_methods_that_nobody_knows_share_a_series(client: httpx.AsyncClient):
    for n in range(20):
        await client.request(f"METHOD{n}", "/v1/purchases")

    [series] = [s for s in await scrape(client) if s.name == REQUESTS]
    assert series.labels == {"method": "other", "route": "/v1/purchases", "status": "4xx"}
    assert series.value == 20


@pytest.mark.parametrize("header", ["Forwarded", "X-Forwarded-Proto", "X-Real-IP", "Via"])
async def test_metrics_are_not_for_those_behind_the_proxy(client: httpx.AsyncClient, header: str):
    response = await client.get("/metrics", headers={header: "10.0.0.1"})

    assert response.status_code == 404


async def test_metrics_in_production_want_a_port_or_a_token(
    settings: Settings, resources: Resources
):
    production = settings.model_copy(update={"environment": "production"})
    app = create_app(production)
    async with client_of(app, resources | {"settings": production}) as client:
        response = await client.get("/metrics")

    assert response.status_code == 404
    assert "METRICS_PORT or METRICS_TOKEN" in response.json()["detail"]


async def test_metrics_with_a_token_want_it_and_go_through_a_proxy(
    settings: Settings, resources: Resources
):
    guarded = settings.model_copy(update={"metrics": MetricsSettings(token="a token")})
    app = create_app(guarded)
    async with client_of(app, resources | {"settings": guarded}) as client:
        headers = {"Authorization": "Bearer a token", "Via": "proxy"}
        right = await client.get("/metrics", headers=headers)
        wrong = await client.get("/metrics", headers={"Authorization": "Bearer another"})
        none = await client.get("/metrics")

    assert [response.status_code for response in (right, wrong, none)] == [200, 401, 401]
    assert none.headers["WWW-Authenticate"] == "Bearer"


async def test_database_is_counted_by_pool_and_operation(client: httpx.AsyncClient, shop: Shop):
    before = await scrape(client)
    purchase = await shop.add_purchase(payer_id=await shop.add_payer())
    await client.get(f"/v1/purchases/{purchase['id']}")
    after = await scrape(client)

    def grown(name: str, **labels: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    statements = "database_statement_duration_seconds_count"
    assert grown(statements, operation="SELECT") >= 1
    assert grown(statements, operation="INSERT") >= 2
    assert grown(statements, operation="COMMIT") >= 2
    assert grown("database_pool_wait_seconds_count", pool="read") >= 1
    assert grown("database_pool_wait_seconds_count", pool="write") == 2


async def test_redis_commands_and_their_failures_are_counted(settings: Settings):
    gone = settings.model_copy(update={"redis": RedisSettings(url="unix:///nowhere.sock")})
    async with open_resources(gone) as resources, client_of(create_app(gone), resources) as client:
        await client.get("/health/ready")
        samples = await scrape(client)

    asked = total(samples, "redis_command_duration_seconds_count", command="PING")
    assert 1 <= asked == total(samples, "redis_command_errors_total", command="PING")


async def until_sampled(client: httpx.AsyncClient, name: str, value: float, **labels: str) -> None:
    async with asyncio.timeout(10):
        while total(await scrape(client), name, **labels) != value:
            await asyncio.sleep(0.05)


async def test_gauges_show_what_a_request_holds_while_it_holds_it(
    settings: Settings, resources: Resources
):
    app = create_app(settings)
    let_go = asyncio.Event()

    @app.get("/holding")
    async def hold() -> None:
        async with resources["sessions"].read() as session:
            await session.connection()
            await let_go.wait()

    async with client_of(app, resources) as client, asyncio.TaskGroup() as tasks:
        tasks.create_task(client.get("/holding"))
        # The scrape is itself a request.
        await until_sampled(client, "database_pool_checked_out", 1, pool="read")
        samples = await scrape(client)
        let_go.set()
        await until_sampled(client, "database_pool_checked_out", 0, pool="read")

    pools = settings.database.pool_size
    assert total(samples, "http_requests_in_flight") >= 1
    assert total(samples, "database_pool_size") == pools
    assert total(samples, "database_pool_overflow") == 0
    assert 10e6 < total(samples, "worker_resident_memory_bytes") < 2e9
    assert total(samples, "worker_boots_total") == 1
    assert total(samples, "app_build_info", version=VERSION) == 1


async def test_blocked_event_loop_is_measured_and_the_route_is_named(
    settings: Settings, capfd: pytest.CaptureFixture[str]
):
    watched = settings.model_copy(update={"log": LogSettings(level="WARNING", format="json")})
    app = create_app(watched)

    @app.get("/blocking/{n}")
    async def block(n: int) -> None:
        time.sleep(0.2)

    async with open_resources(watched) as resources, client_of(app, resources) as client:
        before = await scrape(client)
        await client.get("/blocking/1", headers={"X-Request-ID": "culprit"})
        # The monitor comes by when the loop is free again.
        async with asyncio.timeout(10):
            while late(await scrape(client)) == late(before):
                await asyncio.sleep(0.01)

    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    [warning] = [line for line in lines if is_warning(line) and line["request_id"] == "culprit"]
    assert warning["message"] == "The event loop is blocked by GET /blocking/{n}"
    assert "test_metrics.py" in warning["stack"][-1]
    assert warning["stack"][-1].endswith(" block")


def is_warning(line: dict[str, Any]) -> bool:
    """Of a blocked loop; where the machine has no CPU for us, others may have one too."""
    return "event loop" in line["message"] and "request_id" in line


def late(samples: list[Sample]) -> float:
    """How often the loop was more than 100 ms late."""
    name = "event_loop_lag_seconds"
    return total(samples, f"{name}_count") - total(samples, f"{name}_bucket", le="0.1")


def test_every_metric_is_documented():
    documented = (ROOT / "docs/observability.md").read_text()
    section = documented.partition("## Metrics\n")[2].partition("\n##")[0]
    table = [line for line in section.splitlines() if line.startswith("| `")]
    names = {name for line in table for name in re.findall("`([a-z_]+)`", line.split("|")[1])}

    assert names == {family.name for family in declare_metrics().registry.collect()}
