"""The service on two real MariaDB servers: what may be old, what never is, and who is asked."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import httpx2 as httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import create_async_engine

from app.schemas.user import Role
from app.services.accounts.users import UserService
from app.settings import Settings
from chassis.cache.store import CLOCK_SKEW
from chassis.database.replica import Replica
from chassis.resources import Resources, open_resources
from tests.accounts import add_account
from tests.conftest import VAR, Servers, client_of
from tests.process import TIMEOUT, wait_until
from tests.replication import Replication, replication, settings_of
from tests.service import create_app
from tests.shop import Shop
from tests.upstream import Upstream

pytestmark = pytest.mark.drill

LAG = 1.0  # s
PASSWORD = "Kpd5-wvX8-9rTq"


@pytest.fixture(scope="session")
def pair(servers: Servers) -> Iterator[Replication]:
    with replication(servers.folder / "replication", VAR) as started:
        yield started


@pytest.fixture
async def replicated(pair: Replication, servers: Servers) -> AsyncIterator[Settings]:
    """Settings of a service on both, with a database of its own."""
    async with pair.database() as database:
        yield settings_of(database, servers.redis_url, LAG)


@pytest.fixture
async def workers(replicated: Settings) -> AsyncIterator[list[Resources]]:
    """Two that share databases and Redis, and read from the replica."""
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(open_resources(replicated)) for _ in range(2)]
        for worker in workers:
            await until_state(worker, "ok")
        yield workers


@pytest.fixture
async def clients(
    workers: list[Resources], replicated: Settings
) -> AsyncIterator[list[httpx.AsyncClient]]:
    app = create_app(replicated)
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(client_of(app, worker)) for worker in workers]


@pytest.fixture
async def shop(workers: list[Resources], clients: list[httpx.AsyncClient]) -> Shop:
    async with workers[0]["sessions"].write() as session:
        token = await add_account(session, Role.EDITOR, workers[0]["access_tokens"])
    return Shop(clients[0], token)


def replica_of(worker: Resources) -> Replica:
    [(replica, _)] = worker["sessions"].replicas
    return replica


async def until_state(worker: Resources, state: str) -> None:
    await wait_until(lambda: replica_of(worker).state == state, f"a replica that is {state}")


@contextmanager
def asked(worker: Resources) -> Iterator[list[str]]:
    """The statements that requests send to the replica."""
    statements: list[str] = []
    [(_, factory)] = worker["sessions"].replicas
    engine = factory.kw["bind"].sync_engine

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def test_anonymous_reads_go_to_the_replica_and_others_to_the_primary(
    workers: list[Resources],
    clients: list[httpx.AsyncClient],
    shop: Shop,
    upstream: Upstream,
):
    client, fresh = clients[0], {"Cache-Control": "no-cache"}
    purchase = await shop.add_purchase(upstream.url("alpha"))
    path = f"/v1/purchases/{purchase['id']}"
    await wait_until(lambda: replica_of(workers[0]).lag < LAG / 2, "the replica to have it")

    with asked(workers[0]) as anonymous:
        assert (await client.get(path, headers=fresh)).status_code == 200
        assert (await client.get(f"{path}/tracking")).status_code == 200
    with asked(workers[0]) as others:
        assert (await client.get(path, headers=shop.editor)).status_code == 200
        assert (await client.get(f"{path}/tracking", headers=shop.editor)).status_code == 200
        me = await client.get("/v1/users/me", headers=shop.editor)
        assert me.status_code == 200
        assert (await shop.change(path, note="Another")).status_code == 200

    assert len(anonymous) == 2
    assert others == []


async def test_a_replica_that_stops_for_ten_seconds_makes_nothing_wrong(
    pair: Replication, workers: list[Resources], clients: list[httpx.AsyncClient]
):
    """Login, logout, role, password and PATCH, each seen at once by the other worker."""
    users = UserService(workers[0])
    here, there = clients
    wrong: list[str] = []

    async def expect(status: int, response: httpx.Response, what: str) -> None:
        if response.status_code != status:
            wrong.append(f"{what}: {response.status_code} {response.text}")

    async def log_in(client: httpx.AsyncClient, email: str, password: str) -> httpx.Response:
        return await client.post("/v1/tokens", data={"username": email, "password": password})

    async def live(number: int) -> None:
        """What one account does, by turns at both workers."""
        email, changed = f"reader-{number}@example.com", f"{PASSWORD}-2"
        body = {"email": email, "name": "Before", "password": PASSWORD}
        await expect(201, await here.post("/v1/users", json=body), "register")
        login = await log_in(there, email, PASSWORD)
        await expect(200, login, "login")
        token = {"Authorization": f"Bearer {login.json()['access_token']}"}
        await expect(200, await here.get("/v1/users/me", headers=token), "a fresh login")
        await here.patch("/v1/users/me", json={"name": "After"}, headers=token)
        me = await there.get("/v1/users/me", headers=token)
        if me.json()["name"] != "After":
            wrong.append("an old name")

        payer = {"name": f"Payer {number}"}
        await expect(403, await there.post("/v1/payers", json=payer, headers=token), "a reader")
        await users.set_role(email, Role.EDITOR)
        made = await there.post("/v1/payers", json=payer, headers=token)
        await expect(201, made, "a new editor")
        path = f"/v1/payers/{made.json()['id']}"
        for headers in (token, {}, {"Cache-Control": "max-age=0"}):
            await expect(200, await here.get(path, headers=headers), "a new payer")
        new = f"Renamed {number}"
        await expect(200, await here.patch(path, json={"name": new}, headers=token), "PATCH")
        for client in (here, there):
            for headers in (token, {}):
                if (await client.get(path, headers=headers)).json()["name"] != new:
                    wrong.append(f"an old payer, {'with' if headers else 'without'} a token")
        await users.set_role(email, Role.READER)
        denied = await there.patch(path, json={"name": "Never"}, headers=token)
        await expect(403, denied, "a revoked role")

        passwords = {"password": changed, "current_password": PASSWORD}
        change = await there.patch("/v1/users/me", json=passwords, headers=token)
        await expect(200, change, "a new password")
        await expect(401, await log_in(here, email, PASSWORD), "the old password")
        login = await log_in(here, email, changed)
        await expect(200, login, "the new password")
        other = {"Authorization": f"Bearer {login.json()['access_token']}"}
        await expect(204, await there.delete("/v1/tokens", headers=token), "logout")
        await expect(401, await here.get("/v1/users/me", headers=token), "after the logout")
        await expect(200, await there.get("/v1/users/me", headers=other), "the other login")

    await pair.stop_applying()
    start, number = time.monotonic(), 0
    while time.monotonic() < start + 10:
        await asyncio.gather(live(number), live(number + 1))
        number += 2

    assert wrong == []
    assert number > 10
    assert [replica_of(worker).state for worker in workers] == ["lagging", "lagging"]


async def test_a_replica_that_lags_is_left_and_nothing_old_is_cached(
    pair: Replication,
    workers: list[Resources],
    clients: list[httpx.AsyncClient],
    shop: Shop,
):
    purchase = await shop.add_purchase("Before")
    path = f"/v1/purchases/{purchase['id']}"
    await pair.catch_up()
    await pair.stop_applying()

    await shop.change(path, note="After")
    at_once = [(await client.get(path)).json()["note"] for client in clients for _ in range(3)]
    await until_state(workers[0], "lagging")
    # By now a replica that kept up would have the change, and might be read for the cache.
    await wait_until(lambda: replica_of(workers[0]).lag > LAG + CLOCK_SKEW, "the write to be old")
    with asked(workers[0]) as statements:
        listed = (await clients[0].get("/v1/purchases?limit=1")).json()["items"][0]["note"]
        fresh = {"Cache-Control": "no-cache"}
        uncached = (await clients[0].get(path, headers=fresh)).json()["note"]
    ready = (await clients[0].get("/health/ready")).json()
    await pair.go_on()
    await until_state(workers[0], "ok")
    again = (await clients[0].get("/health/ready")).json()

    assert set(at_once) == {"After"}
    assert (listed, uncached) == ("After", "After")
    assert statements == []
    assert (ready["database"], ready["replica"]) == ("ok", "lagging")
    assert again["replica"] == "ok"


async def test_a_replica_that_is_silent_costs_no_request_its_time(
    pair: Replication,
    workers: list[Resources],
    clients: list[httpx.AsyncClient],
    shop: Shop,
    caplog: pytest.LogCaptureFixture,
):
    """Those that wait for it when it falls silent are answered by the primary, as all others."""
    purchase = await shop.add_purchase()
    path, fresh = f"/v1/purchases/{purchase['id']}", {"Cache-Control": "no-cache"}
    await pair.catch_up()

    caplog.set_level("WARNING", "app.replica")
    with pair.frozen(pair.replica):
        waiting = [clients[0].get(path, headers=fresh) for _ in range(20)]
        responses = await asyncio.gather(*waiting)
        with asked(workers[0]) as statements:
            responses += [await clients[0].get(path, headers=fresh) for _ in range(20)]
        ready = await clients[0].get("/health/ready")
    await until_state(workers[0], "ok")

    assert {response.status_code for response in responses} == {200}
    assert statements == []
    assert ready.status_code == 200
    assert ready.json()["replica"] == "unavailable"
    said = [record.getMessage() for record in caplog.records if record.name == "app.replica"]
    name = replica_of(workers[0]).name
    assert f"No reads go to the replica {name}, as it is unavailable: it does not respond" in said


async def test_a_replica_that_dies_fails_no_request(
    pair: Replication,
    workers: list[Resources],
    clients: list[httpx.AsyncClient],
    shop: Shop,
):
    purchase = await shop.add_purchase()
    path, fresh = f"/v1/purchases/{purchase['id']}", {"Cache-Control": "no-cache"}
    await pair.catch_up()
    await asyncio.gather(*(clients[0].get(path, headers=fresh) for _ in range(5)))

    pair.replica.stop()
    try:
        responses = [await clients[0].get(path, headers=fresh) for _ in range(20)]
        ready = await clients[0].get("/health/ready")
    finally:
        pair.replica.start()
    await until_state(workers[0], "ok")

    assert {response.status_code for response in responses} == {200}
    assert ready.json()["replica"] == "unavailable"


async def test_without_the_primary_the_service_is_not_ready(
    pair: Replication, workers: list[Resources], clients: list[httpx.AsyncClient]
):
    with pair.frozen(pair.primary):
        away = await clients[0].get("/health/ready")
    back = await clients[0].get("/health/ready")

    assert away.status_code == 503
    assert "primary database" in away.json()["detail"]
    assert "a replica is" in away.json()["detail"]
    assert back.status_code == 200


async def test_a_replica_of_unknown_age_is_not_used(replicated: Settings):
    """As long as no primary has said how old it is, from the start on."""
    away = SecretStr("mariadb+asyncmy://shop@127.0.0.1:1/shop")
    database = replicated.database.model_copy(update={"url": away, "read_lag": 3})
    async with open_resources(replicated.model_copy(update={"database": database})) as worker:
        replica, states = replica_of(worker), set[str]()

        def late() -> bool:
            states.add(replica.state)
            return replica.state == "lagging"

        await wait_until(late, "a replica that may be too old")

    assert states == {"unknown", "lagging"}


async def test_metrics_tell_how_far_the_replica_is_behind(
    pair: Replication, workers: list[Resources]
):
    registry, labels = workers[0]["metrics"].registry, {"replica": replica_of(workers[0]).name}

    def value(name: str) -> float | None:
        return registry.get_sample_value(name, labels)

    await wait_until(lambda: value("database_replica_avoided") == 0, "the replica to be used")
    await pair.stop_applying()
    await wait_until(lambda: value("database_replica_avoided") == 1, "the replica to be avoided")

    assert (value("database_replica_lag_seconds") or 0) > LAG


@pytest.mark.parametrize("ended_by", ["limit", "kill"])
async def test_a_commit_that_the_server_ends_has_an_unknown_outcome(
    pair: Replication, replicated: Settings, ended_by: str
):
    """Here, not beside the other lost commits: nobody else may commit on this server meanwhile."""
    limits = {"statement_timeout": 0.5 if ended_by == "limit" else 10, "read_url": None}
    database = replicated.database.model_copy(update=limits)
    settings = replicated.model_copy(update={"database": database})
    blocker = create_async_engine(pair.primary.url, isolation_level="AUTOCOMMIT")
    async with (
        open_resources(settings) as worker,
        client_of(create_app(settings), worker) as client,
    ):
        async with worker["sessions"].write() as session:
            token = await add_account(session, Role.EDITOR, worker["access_tokens"])
        shop = Shop(client, token)
        async with blocker.connect() as connection:
            for stage in ("START", "FLUSH", "BLOCK_DDL", "BLOCK_COMMIT"):
                await connection.execute(text(f"BACKUP STAGE {stage}"))
            post = client.post("/v1/payers", json={"name": "Mary"}, headers=shop.editor)
            posting = asyncio.create_task(post)
            if ended_by == "kill":
                wanted = "SELECT id FROM information_schema.processlist WHERE info = 'COMMIT'"
                async with asyncio.timeout(TIMEOUT):
                    while (id := await connection.scalar(text(wanted))) is None:
                        await asyncio.sleep(0.02)
                await connection.execute(text(f"KILL {id}"))
            response = await posting
            await connection.execute(text("BACKUP STAGE END"))
    await blocker.dispose()

    assert response.status_code == 503
    assert response.json()["type"] == "urn:problem-type:outcome-unknown"
    assert "Retry-After" not in response.headers
