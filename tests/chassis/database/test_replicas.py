"""The service on a primary and two replicas: which one is read, while they come, lag and go."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import httpx2 as httpx
import pytest
from sqlalchemy import make_url

from app.schemas.user import Role
from app.settings import Settings
from chassis.development.private_servers import Server
from chassis.resources import Resources, open_resources
from tests.accounts import add_account
from tests.conftest import VAR, Servers, client_of
from tests.process import TIMEOUT, wait_until
from tests.replication import Replication, execute, replication, settings_of
from tests.service import create_app
from tests.shop import Shop

pytestmark = pytest.mark.drill

LAG = 2.0  # s
FRESH = {"Cache-Control": "no-cache"}


@pytest.fixture(scope="module")
def three(servers: Servers) -> Iterator[Replication]:
    with replication(servers.folder / "replicas", VAR, replicas=2) as started:
        yield started


@pytest.fixture
async def replicated(three: Replication, servers: Servers) -> AsyncIterator[Settings]:
    async with three.database() as database:
        yield settings_of(database, servers.redis_url, LAG)


@pytest.fixture
async def worker(replicated: Settings) -> AsyncIterator[Resources]:
    async with open_resources(replicated) as worker:
        await until(worker, "ok", "ok")
        yield worker


@pytest.fixture
async def shop(worker: Resources, replicated: Settings) -> AsyncIterator[Shop]:
    async with client_of(create_app(replicated), worker) as client:
        yield Shop(client, await editor(worker))


async def editor(worker: Resources) -> str:
    async with worker["sessions"].write() as session:
        return await add_account(session, Role.EDITOR, worker["access_tokens"])


async def until(worker: Resources, *states: str) -> None:
    def reached() -> bool:
        return tuple(replica.state for replica, _ in worker["sessions"].replicas) == states

    await wait_until(reached, f"replicas that are {states}")


async def counted(server: Server, column: str) -> int:
    """The statements of that kind that clients have sent to the server; replicated ones are not
    counted.
    """
    statement = (
        f"SELECT coalesce(sum({column}), 0) FROM information_schema.user_statistics"
        " WHERE user = 'root'"
    )
    return int(str(await execute(make_url(server.url), statement)))


async def counts(three: Replication, column: str = "select_commands") -> list[int]:
    return [await counted(server, column) for server in (three.primary, *three.replicas)]


@asynccontextmanager
async def load(client: httpx.AsyncClient, path: str) -> AsyncIterator[list[int]]:
    """Ten clients that read `path` again and again; yields the status of each response."""
    statuses: list[int] = []

    async def read() -> None:
        while True:
            statuses.append((await client.get(path, headers=FRESH)).status_code)

    readers = [asyncio.create_task(read()) for _ in range(10)]
    try:
        yield statuses
    finally:
        for reader in readers:
            reader.cancel()
        ends = await asyncio.gather(*readers, return_exceptions=True)
    assert [end for end in ends if not isinstance(end, asyncio.CancelledError)] == []


async def more(statuses: Sequence[int], number: int = 200) -> None:
    wanted = len(statuses) + number
    await wait_until(lambda: len(statuses) >= wanted, f"{number} more responses")


async def until_read(*servers: Server) -> None:
    """Until each has had a hundred reads."""
    async with asyncio.timeout(TIMEOUT):
        wanted = [await counted(server, "select_commands") + 100 for server in servers]
        for server, count in zip(servers, wanted, strict=True):
            while await counted(server, "select_commands") < count:
                await asyncio.sleep(0.02)


def checkouts(worker: Resources) -> list[float | None]:
    """From the pool of each replica: one for each read of a request."""
    value, name = worker["metrics"].registry.get_sample_value, "database_pool_wait_seconds_count"
    names = [replica.name for replica, _ in worker["sessions"].replicas]
    return [value(name, {"pool": f"replica {each}"}) for each in names]


@contextmanager
def away(servers: Sequence[Server]) -> Iterator[None]:
    for server in servers:
        assert server.process is not None
        server.process.kill()
    try:
        yield
    finally:
        for server in servers:
            server.stop()
            server.start()


async def test_reads_go_to_both_replicas_and_writes_to_the_primary(three: Replication, shop: Shop):
    purchase = await shop.add_purchase()
    await three.catch_up()
    before, writes = await counts(three), await counts(three, "update_commands")

    for _ in range(50):
        response = await shop.client.get(f"/v1/purchases/{purchase['id']}", headers=FRESH)
        assert response.status_code == 200
    after = await counts(three)
    for number in range(10):
        await shop.change(f"/v1/purchases/{purchase['id']}", note=f"Note {number}")
    written = await counts(three, "update_commands")

    _, *read = [now - then for now, then in zip(after, before, strict=True)]
    assert min(read) >= 25
    primary, *replicas = [now - then for now, then in zip(written, writes, strict=True)]
    assert primary >= 10
    assert replicas == [0, 0]


async def test_a_replica_that_is_killed_under_load_fails_no_request(
    three: Replication, worker: Resources, shop: Shop
):
    purchase = await shop.add_purchase()
    await three.catch_up()

    async with load(shop.client, f"/v1/purchases/{purchase['id']}") as statuses:
        await until_read(*three.replicas)
        with away(three.replicas[:1]):
            await until(worker, "unavailable", "ok")
            await until_read(three.replicas[1])
            ready = await shop.client.get("/health/ready")
        await until(worker, "ok", "ok")
        await until_read(*three.replicas)

    assert set(statuses) == {200}
    assert ready.json()["replica"] == "unavailable"


async def test_without_replicas_the_primary_is_read_until_they_are_back(
    three: Replication, worker: Resources, shop: Shop
):
    purchase = await shop.add_purchase()
    await three.catch_up()

    async with load(shop.client, f"/v1/purchases/{purchase['id']}") as statuses:
        with away(three.replicas):
            await until(worker, "unavailable", "unavailable")
            await until_read(three.primary)
            ready = await shop.client.get("/health/ready")
        await until(worker, "ok", "ok")
        await until_read(*three.replicas)

    assert set(statuses) == {200}
    assert ready.json()["replica"] == "unavailable"


async def test_a_replica_that_lags_is_left_alone(three: Replication, worker: Resources, shop: Shop):
    purchase = await shop.add_purchase("Before")
    path = f"/v1/purchases/{purchase['id']}"
    await three.catch_up()
    value = worker["metrics"].registry.get_sample_value
    name = worker["sessions"].replicas[0].replica.name

    await three.stop_applying(three.replicas[0])
    await until(worker, "lagging", "ok")
    await shop.change(path, note="After")
    await three.catch_up(three.replicas[1])
    before = checkouts(worker)
    async with load(shop.client, path) as statuses:
        await until_read(three.replicas[1])
    seen = {(await shop.client.get(path, headers=FRESH)).json()["note"] for _ in range(10)}
    after = checkouts(worker)
    avoided = value("database_replica_avoided", {"replica": name})
    ready = await shop.client.get("/health/ready")
    await three.go_on()
    await until(worker, "ok", "ok")
    async with load(shop.client, path) as back:
        await until_read(*three.replicas)

    assert after[0] == before[0]
    assert seen == {"After"}
    assert avoided == 1
    assert ready.json()["replica"] == "lagging"
    assert set(statuses) | set(back) == {200}


@pytest.fixture
async def patient(replicated: Settings) -> AsyncIterator[Resources]:
    """A worker that reads from replicas which are a minute behind."""
    database = replicated.database.model_copy(update={"read_lag": 60})
    async with open_resources(replicated.model_copy(update={"database": database})) as worker:
        await until(worker, "ok", "ok")
        yield worker


async def test_a_value_is_loaded_from_a_replica_that_has_its_last_write(
    three: Replication, patient: Resources, replicated: Settings
):
    """However far behind another one is."""
    async with client_of(create_app(replicated), patient) as client:
        shop = Shop(client, await editor(patient))
        paths = [f"/v1/purchases/{(await shop.add_purchase())['id']}" for _ in range(20)]
        await three.catch_up()
        await three.stop_applying()
        for path in paths:
            await shop.change(path, note="After")
        written = time.monotonic()

        at_once = checkouts(patient)
        notes = [(await client.get(path)).json()["note"] for path in paths[:10]]
        soon = checkouts(patient)
        await three.go_on(three.replicas[1])
        [_, (up_to_date, _)] = patient["sessions"].replicas
        await wait_until(lambda: up_to_date.has(written + 1), "a replica with all writes")
        reads = await counted(three.replicas[1], "select_commands")
        notes += [(await client.get(path)).json()["note"] for path in paths[10:]]
        last = checkouts(patient)

    assert notes == ["After"] * 20
    assert soon[0] == at_once[0] == last[0]
    assert soon[1] == at_once[1]
    assert await counted(three.replicas[1], "select_commands") >= reads + 10


async def test_replicas_that_lag_under_load_make_nothing_wrong(
    three: Replication, replicated: Settings
):
    """Writers read their own writes, others read through the cache, both workers alike."""
    app, wrong, stale = create_app(replicated), list[str](), list[str]()
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(open_resources(replicated)) for _ in range(2)]
        for worker in workers:
            await until(worker, "ok", "ok")
        clients = [await stack.enter_async_context(client_of(app, each)) for each in workers]
        shop = Shop(clients[0], await editor(workers[0]))
        paths = [f"/v1/purchases/{(await shop.add_purchase('0'))['id']}" for _ in range(4)]
        latest = dict.fromkeys(paths, 0)  # the note of the last response to a writer
        await three.catch_up()
        served, ended = list[int](), asyncio.Event()  # the status of each read

        async def get(client: httpx.AsyncClient, path: str, headers: dict[str, str]) -> None:
            known = latest[path]
            response = await client.get(path, headers=headers)
            served.append(response.status_code)
            if response.status_code != 200:
                wrong.append(f"{response.status_code} {response.text}")
            elif int(response.json()["note"]) < known:
                (wrong if headers else stale).append(f"{response.json()['note']} after {known}")

        async def write(number: int, path: str) -> None:
            while not ended.is_set():
                note = latest[path] + 1
                client = clients[(number + note) % 2]
                body = {"note": str(note)}
                changed = await client.patch(path, json=body, headers=shop.editor)
                if changed.status_code != 200:
                    wrong.append(f"PATCH: {changed.status_code} {changed.text}")
                latest[path] = note
                await get(clients[note % 2], path, shop.editor)

        async def read(number: int) -> None:
            while not ended.is_set():
                await get(clients[number % 2], paths[number % len(paths)], {})

        async with asyncio.TaskGroup() as group:
            for number, path in enumerate(paths):
                group.create_task(write(number, path))
            for number in range(8):
                group.create_task(read(number))
            for stopped in (three.replicas[:1], three.replicas):
                await three.stop_applying(*stopped)
                behind = ["lagging"] * len(stopped)
                for worker in workers:
                    await until(worker, *behind, *["ok"] * (2 - len(behind)))
                await more(served, 500)
                await three.go_on()
                for worker in workers:
                    await until(worker, "ok", "ok")
            ended.set()
        for path in paths:
            for client in clients * 2:
                await get(client, path, {})

    assert (wrong, stale) == ([], [])
    assert min(latest.values()) > 20
