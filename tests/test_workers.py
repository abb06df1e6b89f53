"""Metrics of four workers over a minute of recycling and a reload, as clients count them and
as a real Prometheus sees them; and what else only several processes show."""

import asyncio
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.samples import Sample

from app.logs import MAX_WAITING
from benchmarks.client import Asked, ask
from tests.conftest import Servers
from tests.metrics import scrape, total
from tests.process import ROOT, Service, free_port, running, wait_until
from tests.prometheus import Prometheus, scraping

# One database is enough here.
pytestmark = pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)

WORKERS = 4
REQUESTS = 100_000
PATHS = ["/health", "/v1/books?sort=x", "/health", "/openapi.json"]
SCRAPES = 60  # one a second
COUNT = "http_request_duration_seconds_count"
DASHBOARDS = sorted((ROOT / "docker/grafana/dashboards").glob("*.json"))
QUERIES = [
    pytest.param(target["expr"], id=f"{board.stem}: {panel['title']} {target['refId']}")
    for board in DASHBOARDS
    for panel in json.loads(board.read_text())["panels"]
    for target in panel["targets"]
]


@pytest.fixture(scope="module")
def environment(database_url: str, servers: Servers) -> dict[str, Any]:
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": servers.valkey.url,
        "WEB_CONCURRENCY": WORKERS,
    }


@dataclass
class Minute:
    asked: Asked
    samples: list[Sample]
    boots: int
    recycles: int
    files: list[Path]
    prometheus: Prometheus


@pytest.fixture(scope="module")
async def minute(
    environment: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Minute]:
    """A minute of the service, with load, recycling, a reload and a Prometheus that scrapes it."""
    folder = tmp_path_factory.mktemp("minute")
    variables = environment | {
        "WEB_MAX_REQUESTS": 8_000,
        "WEB_MAX_REQUESTS_JITTER": 1_000,
        "LOG_ACCESS_SAMPLE": 0.01,
    }
    async with running(folder / "log", **variables) as service, asyncio.timeout(200):
        with scraping(service.url.removeprefix("http://"), folder) as prometheus:
            asked = Asked()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(ask(service.url, PATHS, REQUESTS, asked=asked))
                while asked.answers.total() < REQUESTS / 3:
                    await asyncio.sleep(0.01)
                service.signal(signal.SIGHUP)
            await wait_until(lambda: is_settled(service), "the last worker to come up")
            async with httpx2.AsyncClient(base_url=service.url) as client:
                samples = await scrape(client)
            minute = Minute(
                asked=asked,
                samples=samples,
                boots=len(service.messages("Application startup complete")),
                recycles=len(service.messages("Maximum request limit")),
                files=metric_files(service),
                prometheus=prometheus,
            )
            # From here on with the database and the cache, for their panels.
            while len(await scrapes(prometheus)) < SCRAPES:
                await ask(service.url, ["/v1/books", "/health/ready", "/nowhere"], 60, clients=3)
            yield minute


def is_settled(service: Service) -> bool:
    """No worker is on its way up or down."""
    came = len(service.messages("Application startup complete"))
    went = len(service.messages("Worker exiting"))
    return came - went == len(service.workers) == WORKERS


async def scrapes(prometheus: Prometheus) -> list[Any]:
    [up] = await asyncio.to_thread(prometheus.query, "up[5m]")
    return [value for _, value in up["values"] if value == "1"]


def metric_files(service: Service) -> list[Path]:
    """All that lie where the workers count."""
    links = [link for worker in service.workers for link in service.open_files(worker)]
    [folder] = {Path(link).parent for link in links if re.search(r"/metrics-\w+/\w+\.db$", link)}
    return list(folder.iterdir())


async def test_metrics_count_what_clients_saw_over_recycling_and_a_reload(minute: Minute):
    def counted(route: str, status: str) -> float:
        return total(minute.samples, COUNT, method="GET", route=route, status=status)

    assert minute.asked.broken == 0
    assert minute.asked.answers == {200: 0.75 * REQUESTS, 422: 0.25 * REQUESTS}
    assert counted("/health", "2xx") == 0.5 * REQUESTS
    assert counted("/openapi.json", "2xx") == 0.25 * REQUESTS
    assert counted("/v1/books", "4xx") == 0.25 * REQUESTS


async def test_metrics_count_boots_and_recycles_of_workers(minute: Minute):
    assert total(minute.samples, "worker_boots_total") == minute.boots
    assert total(minute.samples, "worker_recycles_total") == minute.recycles
    assert minute.recycles >= WORKERS
    assert minute.boots > 2 * WORKERS  # the first, those of the reload, and more


async def test_metric_files_do_not_pile_up(minute: Minute):
    slots = {file.stem.rpartition("_")[2] for file in minute.files}

    # A reload starts new workers before the old ones go, which may be when others are recycled.
    assert slots <= {str(slot) for slot in range(1, 2 * WORKERS + 1)}
    assert len(minute.files) <= 4 * len(slots)


@pytest.mark.parametrize("expression", QUERIES)
async def test_panel_shows_data(minute: Minute, expression: str):
    series = minute.prometheus.query(expression.replace("$__rate_interval", "15s"))

    assert series
    assert not all(math.isnan(float(one["value"][1])) for one in series)


@pytest.mark.parametrize(
    "rule",
    [
        "route:http_requests:rate1m",
        "job:http_requests:rate1m",
        "job:http_errors:ratio_rate5m",
        "job:http_errors:ratio_rate1h",
        "job:http_request_duration_seconds:p99_rate5m",
    ],
)
async def test_recording_rule_gives_data(minute: Minute, rule: str):
    assert minute.prometheus.query(rule)


async def test_ten_thousand_random_paths_add_one_series(
    environment: dict[str, Any], tmp_path: Path
):
    paths = [f"/{n}/{'x' * (n % 50)}" for n in range(10_000)]
    variables = environment | {"WEB_CONCURRENCY": 1, "LOG_ACCESS_SAMPLE": 0}
    async with running(tmp_path / "log", **variables) as service:
        await ask(service.url, paths, len(paths))
        async with httpx2.AsyncClient(base_url=service.url) as client:
            samples = await scrape(client)

    [series] = [sample for sample in samples if sample.name == COUNT]
    assert series.labels == {"method": "GET", "route": "unmatched", "status": "4xx"}
    assert series.value == 10_000


async def test_metrics_are_only_on_their_port(environment: dict[str, Any], tmp_path: Path):
    port = free_port()
    variables = environment | {"WEB_CONCURRENCY": 1, "METRICS_PORT": port}
    async with running(tmp_path / "log", **variables) as service, httpx2.AsyncClient() as client:
        hidden = await client.get(f"{service.url}/metrics")
        shown = await client.get(f"http://127.0.0.1:{port}/metrics")

    assert (hidden.status_code, shown.status_code) == (404, 200)


async def test_files_of_metrics_go_with_the_service(environment: dict[str, Any], tmp_path: Path):
    async with running(tmp_path / "log", **environment | {"WEB_CONCURRENCY": 1}) as service:
        files = metric_files(service)

    assert len(files) == 4
    assert not any(file.parent.exists() for file in files)


async def test_reader_of_the_log_that_stalls_slows_no_request(environment: dict[str, Any]):
    """Nobody reads this pipe: it is full after some hundred lines, and so is the queue later."""
    port, requests = free_port(), MAX_WAITING + 2000
    variables = environment | {"PORT": port, "LOG_FORMAT": "json", "WEB_CONCURRENCY": 1}
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--config", "gunicorn_config.py"],
        cwd=ROOT,
        env=os.environ | {name: str(value) for name, value in variables.items()},
        stdout=subprocess.PIPE,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        await wait_until(lambda: is_open(port), "the port")
        async with asyncio.timeout(60), httpx2.AsyncClient(base_url=url) as client:
            asked = await ask(url, ["/health"], requests)
            while not total(await scrape(client), "log_lines_dropped_total"):
                await asyncio.sleep(0.05)
    finally:
        process.terminate()
        await wait_until(lambda: process.poll() is not None, "the end")
        process.communicate()

    assert asked.answers == {200: requests}
    assert process.returncode == 0


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
