"""What fifty logins at once do to others: throughput of cached reads, and how late the loop is.

Reads are sent in turns, alone and beside clients that log in again and again.
"""

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlencode

import httpx2 as httpx
from prometheus_client.parser import text_string_to_metric_families as parse

from app.schemas.user import Role, UserCreate
from app.services.accounts.users import UserService
from app.settings import Settings
from benchmarks.client import request_all
from benchmarks.service import Service, fill, one_worker
from chassis.development.private_servers import embedded_valkey
from chassis.resources import open_resources

PATH = "/v1/books/7"
USER = UserCreate(email="reader@example.com", name="Reader", password="a long password")  # noqa: S106
FORM = {"grant_type": "password", "username": USER.email, "password": USER.password}
LOGINS = 50  # at once
TURNS = 8
REQUESTS = 4_000  # in each turn
MIN_SHARE = 0.8  # of the throughput alone
MAX_LAG = 0.05  # s


def main() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        variables = {
            "DATABASE_URL": f"sqlite+aiosqlite:///{folder}/catalogue.db",
            "REDIS_URL": stack.enter_context(embedded_valkey(folder / "valkey")).url,
        }
        asyncio.run(prepare(USER, **variables))
        limits = {"LIMITS_LOGIN_RATE": "1000000", "LIMITS_LOGIN_BURST": "1000000"}
        service = stack.enter_context(one_worker(**variables, **limits))
        httpx.get(service.url + PATH).raise_for_status()
        alone, beside, logins = asyncio.run(compare(service))
        late = lateness(service)
    print(f"Cached reads alone: {alone:.0f} a second")
    print(f"Beside {LOGINS} logins at once: {beside:.0f} a second, and {logins:.0f} logins")
    print(f"That is {beside / alone:.0%} (budget {MIN_SHARE:.0%})")
    print(f"99.9 % of the time the event loop was less than {late * 1000:.0f} ms late")
    raise SystemExit(beside / alone < MIN_SHARE or late > MAX_LAG)


async def prepare(user: UserCreate, **variables: str) -> None:
    await fill(variables["DATABASE_URL"])
    groups: Any = {
        "database": {"url": variables["DATABASE_URL"]},
        "redis": {"url": variables["REDIS_URL"]},
    }
    async with open_resources(Settings(_env_file=None, **groups)) as resources:
        await UserService(resources).create(user, Role.EDITOR)


async def compare(service: Service) -> tuple[float, float, float]:
    """Reads a second alone, beside logins, and how many logins a second those were."""
    await read(service)
    spent = {False: 0.0, True: 0.0}
    done = 0
    for _ in range(TURNS):
        spent[False] += await read(service)
        stopped = asyncio.Event()
        logins = [asyncio.create_task(keep_logging_in(service, stopped)) for _ in range(LOGINS)]
        await asyncio.sleep(0.2)
        spent[True] += await read(service)
        stopped.set()
        done += sum(await asyncio.gather(*logins))
    reads = TURNS * REQUESTS
    return reads / spent[False], reads / spent[True], done / spent[True]


async def read(service: Service) -> float:
    start = time.perf_counter()
    tally = await request_all(service.url, [PATH], REQUESTS, clients=16)
    if tally.responses != {200: REQUESTS}:
        raise SystemExit(f"Some requests failed: {tally}")
    return time.perf_counter() - start


async def keep_logging_in(service: Service, stopped: asyncio.Event) -> int:
    body = urlencode(FORM).encode()
    head = (
        b"POST /v1/tokens HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\n\r\n" % len(body)
    )
    host, port = service.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    done = 0
    while not stopped.is_set():
        writer.write(head + body)
        response = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not response.startswith(b"http/1.1 200"):
            raise SystemExit(f"A login failed: {response!r}")
        length = int(response.partition(b"content-length:")[2].split()[0])
        await reader.readexactly(length)
        done += 1
    writer.close()
    return done


def lateness(service: Service) -> float:
    """The bucket in which 99.9 % of the timers are, s."""
    text = httpx.get(service.url + "/metrics").text
    [family] = [family for family in parse(text) if family.name == "event_loop_lag_seconds"]
    buckets = {
        float(sample.labels["le"]): sample.value
        for sample in family.samples
        if sample.name.endswith("_bucket")
    }
    everything = buckets[float("inf")]
    return min(bound for bound, count in buckets.items() if count >= 0.999 * everything)


if __name__ == "__main__":
    main()
