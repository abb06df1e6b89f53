"""Three services on ports of their own, with one database: what one does holds in all of them."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.accounts import editors_token
from tests.conftest import Servers
from tests.databases import mariadb_only
from tests.job_process import job_worker
from tests.logins import PASSWORD
from tests.mail import read_mail
from tests.process import running, wait_until
from tests.shop import Shop, purchase

# One database is enough here.
pytestmark = [mariadb_only, pytest.mark.drill]

SERVICES = 3
WRITES = 150  # that LIMITS_WRITES allows one account before it has to wait
ROUNDS = 20
SLOWLY = 0.0001  # per second: nothing is added while a test runs


@pytest.fixture(scope="module")
async def clients(
    database_url: str, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[list[httpx.AsyncClient]]:
    folder = tmp_path_factory.mktemp("services")
    variables: dict[str, Any] = {
        "DATABASE_URL": database_url,
        "DATABASE_POOL_SIZE": 5,
        "DATABASE_MAX_OVERFLOW": 5,
        "REDIS_URL": servers.redis_url,
        "REDIS_TIMEOUT": 2,  # a machine that is busy for a moment is no Redis that is away
        "CACHE_NAMESPACE": f"test-{secrets.token_hex(4)}",
        "MAIL_URL": f"file://{folder}/mail",
        "LIMITS_WRITES_RATE": SLOWLY,
        "LIMITS_WRITES_BURST": WRITES,
        "LIMITS_LOGIN_BURST": 100,
        "PASSWORDS_TIME_COST": 1,
        "PASSWORDS_MEMORY_COST": 8,
        "WEB_CONCURRENCY": 1,
        "WEB_REPLICAS": SERVICES,
        "JOBS_REPLICAS": 2,
    }
    async with AsyncExitStack() as stack:
        started = [
            await stack.enter_async_context(running(folder / f"{number}.log", **variables))
            for number in range(SERVICES)
        ]
        for number in range(2):
            output = folder / f"jobs-{number}.log"
            await stack.enter_async_context(job_worker(output, **variables))
        yield [await stack.enter_async_context(service.client()) for service in started]


@pytest.fixture
async def shops(clients: list[httpx.AsyncClient], database_url: str) -> list[Shop]:
    token = await editors_token(database_url)
    return [Shop(client, token) for client in clients]


@pytest.fixture
def mail(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "services0" / "mail"


async def test_change_through_one_is_seen_by_the_next_read_of_each(shops: list[Shop]):
    made = await shops[0].add_purchase()
    path = f"/v1/purchases/{made['id']}"
    for number in range(ROUNDS):
        before = [await shop.client.get(path) for shop in shops]  # fills the cache
        changed = await shops[number % SERVICES].change(path, note=f"{number}")
        after = [await shop.client.get(path) for shop in shops]

        assert changed.status_code == 200
        assert len({response.text for response in before}) == 1
        assert {response.json()["note"] for response in after} == {f"{number}"}
        assert len({response.headers["ETag"] for response in after}) == 1


async def test_request_that_is_repeated_elsewhere_is_done_once(shops: list[Shop]):
    for number in range(ROUNDS):
        body = purchase(note=f"Once {number}")
        headers = {**shops[0].editor, "Idempotency-Key": f"order-{secrets.token_hex(8)}"}
        tries = [
            shop.client.post("/v1/purchases", json=body, headers=headers) for shop in shops * 2
        ]
        responses = await asyncio.gather(*tries)
        statuses = {response.status_code for response in responses}
        found = await shops[0].walk("/v1/purchases", note=body["note"])

        # 409: the first try is not finished yet.
        assert 201 in statuses
        assert statuses <= {201, 409}, statuses
        assert len(found) == 1
        created = {response.text for response in responses if response.status_code == 201}
        assert len(created) == 1


async def test_limit_is_one_for_all(shops: list[Shop]):
    responses = []
    for number in range(WRITES + SERVICES):
        responses.append(await shops[number % SERVICES].change("/v1/purchases/0", note="None"))
    statuses = [response.status_code for response in responses]

    assert statuses == [422] * WRITES + [429] * SERVICES
    assert all(int(response.headers["Retry-After"]) > 0 for response in responses[WRITES:])


async def test_each_job_is_done_once(clients: list[httpx.AsyncClient], mail: Path):
    """By one of two job workers, whichever service has written it."""
    addresses = [f"{secrets.token_hex(4)}@example.com" for _ in range(ROUNDS)]
    registered = await asyncio.gather(
        *(
            clients[number % SERVICES].post(
                "/v1/users", json={"email": address, "name": "Mary", "password": PASSWORD}
            )
            for number, address in enumerate(addresses)
        )
    )

    def welcomed() -> list[str]:
        return sorted(str(message["To"]) for message in read_mail(mail))

    await wait_until(lambda: len(welcomed()) >= ROUNDS, "the mails")

    assert {response.status_code for response in registered} == {201}
    assert welcomed() == sorted(addresses)
