"""Four workers over a minute of reads, writes, recycling and a reload.

What their clients are shown, what they count, and what a real Prometheus sees of it; then what
else only several processes show.
"""

import asyncio
import math
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from prometheus_client.samples import Sample

from benchmarks.client import Tally, request_all
from chassis.telemetry.logs import MAX_WAITING
from tests.accounts import KEY, editors_token
from tests.conftest import Servers
from tests.dashboards import queries
from tests.databases import mariadb_only
from tests.job_process import job_worker
from tests.linearity import History, read_and_write
from tests.logins import PASSWORD
from tests.metrics import scrape, total
from tests.process import ROOT, Service, free_port, running, wait_until
from tests.prometheus import Prometheus, scraping
from tests.shop import Shop
from tests.upstream import Upstream

# One database is enough here.
pytestmark = [mariadb_only, pytest.mark.drill]

WORKERS = 4
PURCHASES = 20
OTHERS = ["/v1/purchases?sort=x", "/openapi.json"]
ROUNDS = 5_000  # through all purchases and the others: 100,000 reads of purchases
STAMPEDE = 500
COLD = "/v1/purchases?limit=77"
RECYCLED = "Maximum request limit"
SCRAPES = 30  # one a second
NEW_SCRAPES = 5  # of which panels see what is counted only since the minute has ended
LOADS = "cache_loads_total"
COUNT = "http_request_duration_seconds_count"
QUERIES = [
    pytest.param(expression, id=panel)
    for panel, expression in queries("cache", "jobs", "saturation", "service", "upstream").items()
]


@pytest.fixture(scope="module")
def environment(database_url: str, servers: Servers) -> dict[str, Any]:
    return {
        "DATABASE_URL": database_url,
        "DATABASE_POOL_SIZE": 5,
        "DATABASE_MAX_OVERFLOW": 5,
        "REDIS_URL": servers.redis_url,
        "TOKENS_KEY": KEY,
        "REDIS_TIMEOUT": 2,  # a machine that is busy for a moment is no Redis that is away
        "CACHE_NAMESPACE": f"test-{secrets.token_hex(4)}",
        "LIMITS_READS_RATE": 1_000_000,
        "LIMITS_READS_BURST": 1_000_000,
        "LIMITS_WRITES_RATE": 1_000_000,
        "LIMITS_WRITES_BURST": 1_000_000,
        "LIMITS_LOGIN_RATE": 1_000_000,
        "LIMITS_LOGIN_BURST": 1_000_000,
        "PASSWORDS_TIME_COST": 1,
        "PASSWORDS_MEMORY_COST": 8,
        "WEB_CONCURRENCY": WORKERS,
    }


@dataclass
class Minute:
    history: History
    samples: list[Sample]
    stampede: Tally
    stampede_loads: float
    boots: int
    recycles: int
    files: list[Path]
    prometheus: Prometheus


@pytest.fixture(scope="module")
async def minute(
    environment: dict[str, Any],
    started_upstream: Upstream,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Minute]:
    """A minute of the service, with load, recycling, a reload and a Prometheus that scrapes it."""
    folder = tmp_path_factory.mktemp("minute")
    token = await editors_token(environment["DATABASE_URL"])
    variables = environment | {
        "WEB_MAX_REQUESTS": 8_000,
        "WEB_MAX_REQUESTS_JITTER": 1_000,
        "LOG_ACCESS_SAMPLE": 0.01,
        "REQUEST_MAX_WORKING": 500,  # nothing is refused where the machine has other things to do
    }
    jobs = f"127.0.0.1:{free_port()}"
    to_see = {"JOBS_METRICS_PORT": jobs.partition(":")[2], "MAIL_URL": f"file://{folder}/mail"}
    async with (
        running(folder / "log", **variables) as service,
        job_worker(folder / "jobs.log", **environment | to_see),
        asyncio.timeout(600),  # ends what hangs
    ):
        with scraping(service.url.removeprefix("http://"), jobs, folder) as prometheus:
            async with service.client() as client:
                paths = await add_purchases(client, token)
                history = History()
                requests = ROUNDS * len(paths + OTHERS)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(
                        read_and_write(service.url, paths, OTHERS, requests, token, history)
                    )
                    while history.tally.responses.total() < requests / 3:
                        await asyncio.sleep(0.01)
                    service.signal(signal.SIGHUP)
                assert history.tally.responses.keys() == {200, 422}
                await wait_until(lambda: is_settled(service), "the last worker to come up")
                samples = await scrape_all(service, client, requests)
                boots = len(service.messages("Application startup complete"))
                recycles = len(service.messages(RECYCLED))
                stampede = await request_all(service.url, [COLD], STAMPEDE, clients=STAMPEDE)
                after = await scrape_all(service, client, requests + STAMPEDE)
            minute = Minute(
                history=history,
                samples=samples,
                stampede=stampede,
                stampede_loads=total(after, LOADS) - total(samples, LOADS),
                boots=boots,
                recycles=recycles,
                files=metric_files(service),
                prometheus=prometheus,
            )
            # From here on for the panels, beside tests that do not need the service.
            async with service.client() as client:
                tracking = await carried(Shop(client, token), started_upstream)
            with asking(service.url, ["/v1/purchases", "/health/ready", "/nowhere", *tracking]):
                yield minute


async def add_purchases(client: httpx.AsyncClient, token: str) -> list[str]:
    shop = Shop(client, token)
    made = [await shop.add_purchase(f"{n}") for n in range(PURCHASES)]
    return [f"/v1/purchases/{each['id']}" for each in made]


async def carried(shop: Shop, upstream: Upstream) -> list[str]:
    """What another server is asked about, of which one is down."""
    upstream.behave("alpha")
    upstream.behave("gamma", errors=1)
    made = [await shop.add_purchase(upstream.url(name)) for name in ("alpha", "gamma")]
    return [f"/v1/purchases/{each['id']}/tracking" for each in made]


async def scrape_all(service: Service, client: httpx.AsyncClient, requests: int) -> list[Sample]:
    """Once every worker has shown what it counted, which takes a twentieth of a second."""
    routes = ("/v1/purchases", "/v1/purchases/{purchase_id}", "/openapi.json")
    async with asyncio.timeout(10):
        while True:
            samples = await scrape(client)
            counted = sum(total(samples, COUNT, method="GET", route=route) for route in routes)
            recycles = total(samples, "worker_recycles_total")
            if counted >= requests and recycles == len(service.messages(RECYCLED)):
                return samples
            await asyncio.sleep(0.05)


@contextmanager
def asking(url: str, paths: list[str]) -> Iterator[None]:
    """Some traffic and jobs while the block runs, whatever the event loop of the tests does."""
    stopped = threading.Event()

    async def keep_asking() -> None:
        async with httpx.AsyncClient(base_url=url) as client:
            for number in count():
                if stopped.is_set():
                    return
                await request_all(url, paths, 15, clients=3)
                # A job welcomes each new account.
                account = {"email": f"{number}@example.com", "name": "A", "password": PASSWORD}
                await client.post("/v1/users", json=account)
                await asyncio.sleep(0.1)

    thread = threading.Thread(target=lambda: asyncio.run(keep_asking()))
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


@pytest.fixture(scope="module")
async def scraped(minute: Minute) -> Prometheus:
    """What it knows after half a minute."""
    async with asyncio.timeout(120):
        enough = max(SCRAPES, len(await scrapes(minute.prometheus)) + NEW_SCRAPES)
        while len(await scrapes(minute.prometheus)) < enough:
            await asyncio.sleep(0.2)
    return minute.prometheus


def is_settled(service: Service) -> bool:
    """No worker is on its way up or down."""
    came = len(service.messages("Application startup complete"))
    went = len(service.messages("Worker exiting"))
    return came - went == len(service.workers) == WORKERS


async def scrapes(prometheus: Prometheus) -> list[Any]:
    [up] = await asyncio.to_thread(prometheus.query, 'up{job="api"}[5m]')
    return [value for _, value in up["values"] if value == "1"]


def metric_files(service: Service) -> list[Path]:
    """All that lie where the workers count."""
    links = [link for worker in service.workers for link in service.open_files(worker)]
    [folder] = {
        Path(link).parent for link in links if re.search(r"/slots-of-metrics-\w+/\w+\.db$", link)
    }
    return list(folder.iterdir())


async def test_metrics_count_what_clients_saw_over_recycling_and_a_reload(minute: Minute):
    def counted(route: str, status: str, method: str = "GET") -> float:
        return total(minute.samples, COUNT, method=method, route=route, status=status)

    assert minute.history.tally.broken == 0
    assert minute.history.tally.responses == {200: (PURCHASES + 1) * ROUNDS, 422: ROUNDS}
    assert counted("/v1/purchases/{purchase_id}", "2xx") == PURCHASES * ROUNDS
    assert counted("/openapi.json", "2xx") == ROUNDS
    assert counted("/v1/purchases", "4xx") == ROUNDS
    # A writer may be cut off when the readers are done, and its change may still be made.
    writes = counted("/v1/purchases/{purchase_id}", "2xx", "PATCH")
    assert 0 <= writes - minute.history.writes[200] <= 2


async def test_no_read_is_older_than_a_write_that_has_returned(minute: Minute):
    history = minute.history

    assert history.old == []
    assert history.reads == PURCHASES * ROUNDS >= 100_000
    assert history.writes.keys() == {200}
    assert history.writes[200] > 100
    hits = total(minute.samples, "cache_lookups_total", result="hit")
    assert hits > 0.5 * history.reads


async def test_five_hundred_who_want_a_cold_answer_at_once_cause_one_load(minute: Minute):
    assert minute.stampede.responses == {200: STAMPEDE}
    assert minute.stampede_loads <= 2  # the second one if the first takes long


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


async def test_ten_thousand_random_paths_add_one_series(
    environment: dict[str, Any], tmp_path: Path
):
    paths = [f"/{n}/{'x' * (n % 50)}" for n in range(10_000)]
    variables = environment | {"WEB_CONCURRENCY": 1, "LOG_ACCESS_SAMPLE": 0}
    async with running(tmp_path / "log", **variables) as service:
        await request_all(service.url, paths, len(paths))
        async with service.client() as client:
            samples = await scrape(client)

    [series] = [sample for sample in samples if sample.name == COUNT]
    assert series.labels == {"method": "GET", "route": "unmatched", "status": "4xx"}
    assert series.value == 10_000


async def test_metrics_are_only_on_their_port(environment: dict[str, Any], tmp_path: Path):
    port = free_port()
    variables = environment | {"WEB_CONCURRENCY": 1, "METRICS_PORT": port}
    async with running(tmp_path / "log", **variables) as service, httpx.AsyncClient() as client:
        hidden = await client.get(f"{service.url}/metrics")
        shown = await client.get(f"http://127.0.0.1:{port}/metrics")

    assert (hidden.status_code, shown.status_code) == (404, 200)


async def test_files_of_metrics_go_with_the_service(environment: dict[str, Any], tmp_path: Path):
    async with running(tmp_path / "log", **environment | {"WEB_CONCURRENCY": 1}) as service:
        files = metric_files(service)

    assert len(files) == 4
    assert not any(file.parent.exists() for file in files)


async def test_files_of_a_killed_master_go_with_the_next_start(
    environment: dict[str, Any], tmp_path: Path
):
    """Not those of one that lives, nor those of a killed one whose workers still do."""
    variables = environment | {"WEB_CONCURRENCY": 1}
    async with running(tmp_path / "log", **variables) as other:
        living = metric_files(other)[0].parent
        async with running(tmp_path / "killed", **variables) as killed:
            folder = metric_files(killed)[0].parent
            [worker] = killed.workers
            os.kill(worker, signal.SIGSTOP)  # else it stops as well, when it misses its master
            killed.signal(signal.SIGKILL)
            killed.process.wait()
            async with running(tmp_path / "first", **variables):
                beside_its_worker = folder.exists()
            os.kill(worker, signal.SIGKILL)
            await wait_until(lambda: not Path(f"/proc/{worker}/fd").exists(), "the worker's end")
            async with running(tmp_path / "second", **variables) as second:
                ours = metric_files(second)[0].parent
                beside_nobody = folder.exists()
                others = living.exists(), ours.exists()

    assert (beside_its_worker, beside_nobody) == (True, False)
    assert others == (True, True)
    assert not living.exists()
    assert not ours.exists()


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
        async with asyncio.timeout(60), httpx.AsyncClient(base_url=url) as client:
            tally = await request_all(url, ["/health"], requests)
            while not total(await scrape(client), "log_lines_dropped_total"):
                await asyncio.sleep(0.05)
    finally:
        process.terminate()
        await wait_until(lambda: process.poll() is not None, "the end")
        process.communicate()

    assert tally.responses == {200: requests}
    assert process.returncode == 0


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("expression", QUERIES)
async def test_panel_shows_data(scraped: Prometheus, expression: str):
    series = scraped.query(expression)

    assert series
    assert not all(math.isnan(float(one["value"][1])) for one in series)


@pytest.mark.parametrize(
    "rule",
    [
        "route:http_requests:rate1m",
        "job:http_requests:rate1m",
        "job:http_errors:ratio_rate5m",
        "slo:burn:rate1h",
        "job:http_request_duration_seconds:p99_rate5m",
    ],
)
async def test_recording_rule_gives_data(scraped: Prometheus, rule: str):
    assert scraped.query(rule)
