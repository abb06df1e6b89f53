"""Gunicorn, our worker and real signals."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from chassis.development.private_servers import Server, private_mariadb
from tests.conftest import VAR, migrate
from tests.databases import mariadb_only
from tests.load import load
from tests.process import Service, running, wait_until

pytestmark = mariadb_only


@pytest.fixture
async def service(environment: dict[str, Any], tmp_path: Path) -> AsyncIterator[Service]:
    async with running(tmp_path / "log", **environment, LOG_LEVLE="debug") as service:
        yield service


async def test_reload_loses_no_request(service: Service):
    before = service.workers
    async with load(service.url, "/v1/purchases?limit=5") as clients:
        await clients.until(100)
        service.signal(signal.SIGHUP)
        await service.wait_for("Finished server process", 2)
        await clients.until(100)

    assert clients.failures == []
    assert clients.refused == 0
    assert set(clients.responses) == {200}
    await wait_until(lambda: not set(before) & set(service.workers), "new workers only")


@pytest.mark.drill
async def test_recycling_loses_no_request(environment: dict[str, Any], tmp_path: Path):
    environment |= {"WEB_MAX_REQUESTS": 60, "WEB_MAX_REQUESTS_JITTER": 20}
    async with running(tmp_path / "log", **environment) as service:
        async with load(service.url, "/v1/purchases?limit=5") as clients:
            await clients.until(600)

        assert clients.failures == []
        assert set(clients.responses) == {200}
        assert len(service.messages("Maximum request limit")) >= 3


@pytest.mark.drill
async def test_killed_worker_is_replaced_and_loses_only_what_it_had(service: Service):
    async with load(service.url, "/v1/purchases?limit=5") as clients:
        await clients.until(100)
        victim = max(service.workers, key=service.connections)
        held = service.connections(victim)
        os.kill(victim, signal.SIGKILL)
        await service.wait_for("Application startup complete", 3)
        await clients.until(100)

    assert held > 0
    assert len(clients.failures) <= held
    assert set(clients.responses) == {200}
    assert victim not in service.workers
    assert len(service.workers) == 2


@pytest.mark.drill
@pytest.mark.parametrize("keep_alive", [True, False])
async def test_stop_under_load_fails_no_request_and_runs_the_lifespan(
    service: Service, keep_alive: bool
):
    clients_count = 16 if keep_alive else 48
    async with load(service.url, "/v1/purchases?limit=5", clients_count, keep_alive) as clients:
        await clients.until(100)
        service.signal(signal.SIGTERM)
        await wait_until(lambda: service.process.poll() is not None, "the end")

    assert clients.failures == []
    assert set(clients.responses) == {200}
    assert service.process.returncode == 0
    assert len(service.messages("Application shutdown complete")) == 2


async def test_worker_that_is_about_to_stop_is_not_ready(service: Service):
    async with service.client() as client:
        before = await client.get("/health/ready")
        service.signal(signal.SIGTERM)
        await service.wait_for("Draining", 2)
        after = await client.get("/health/ready")

    assert before.json() == {"status": "ready", "database": "ok", "redis": "ok"}
    assert after.status_code == 503
    assert after.json()["detail"] == "This worker is about to stop"
    assert after.headers["Connection"] == "close"


async def test_each_request_and_event_is_one_line(service: Service):
    async with service.client() as client:
        for n in range(20):
            await client.get(f"/v1/purchases/{n + 1}", headers={"X-Request-ID": f"request-{n}"})
    service.signal(signal.SIGTERM)
    await wait_until(lambda: service.process.poll() is not None, "the end")

    lines = service.lines
    ids = [line["request_id"] for line in lines if "status" in line]
    assert sorted(id for id in ids if id.startswith("request-")) == sorted(
        f"request-{n}" for n in range(20)
    )
    assert len([line for line in lines if "Application startup complete" in line["message"]]) == 2
    assert all({"time", "level", "message"} <= line.keys() for line in lines)
    # By the master, for all workers.
    assert service.messages("LOG_LEVLE is not a setting; did you mean LOG_LEVEL?") != []
    assert len(service.messages("LOG_LEVLE")) == 1
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]{12}Z", line["time"]) for line in lines)


async def test_too_many_connections_are_refused_at_the_start(
    environment: dict[str, Any], tmp_path: Path
):
    with pytest.raises(AssertionError, match="50 replicas x 2 workers x 45 connections"):
        async with running(tmp_path / "log", **environment, WEB_REPLICAS=50):
            pass
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.fixture
def stoppable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A MariaDB for one test, with the newest schema."""
    with private_mariadb(tmp_path_factory.mktemp("mariadb"), VAR) as server:
        asyncio.run(migrate(server.url))
        yield server


@pytest.mark.drill
async def test_stopped_database_is_a_503_until_it_is_back(
    stoppable: Server, environment: dict[str, Any], tmp_path: Path
):
    environment |= {"DATABASE_URL": stoppable.url}
    async with running(tmp_path / "log", **environment) as service:
        before = service.workers
        async with load(service.url, "/v1/purchases?limit=5") as clients:
            await clients.until(100)
            stoppable.stop()
            await clients.until(100)
            async with service.client() as client:
                refused = await client.get("/v1/purchases")
                ready = await client.get("/health/ready")
                alive = await client.get("/health")
            stoppable.start()
            clients.responses.clear()
            await clients.until(200)

        assert (refused.status_code, ready.status_code, alive.status_code) == (503, 503, 200)
        assert refused.headers["Retry-After"] == "1"
        assert refused.headers["Content-Type"] == "application/problem+json"
        assert clients.failures == []
        assert clients.responses.keys() <= {200, 503}
        assert clients.responses[200] > 150
        assert service.workers == before


@pytest.mark.drill
async def test_service_starts_and_recovers_without_its_database(
    stoppable: Server, environment: dict[str, Any], tmp_path: Path
):
    stoppable.stop()
    async with running(
        tmp_path / "log", **environment | {"DATABASE_URL": stoppable.url}
    ) as service:
        async with service.client() as client:
            without = await client.get("/v1/purchases")
            stoppable.start()
            recovered = await client.get("/v1/purchases")

        assert (without.status_code, recovered.status_code) == (503, 200)
        assert service.messages("The connection budget and the schema are not checked")
