import asyncio
from collections.abc import AsyncIterator

import httpx2 as httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from app.settings import Settings
from chassis.connection_budget import Budget, check_budget, check_replica_budgets
from chassis.database.engines import Sessions, create_engine, open_database, reason_of
from chassis.database.settings import DatabaseSettings
from chassis.database.timing import DatabaseTiming
from chassis.resources import Resources
from chassis.server.settings import WebSettings
from chassis.telemetry.metrics import Metrics
from tests.databases import mariadb_only
from tests.shop import Shop


@pytest.fixture
async def sessions(database_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Sessions]:
    """Pools with what a test's `parametrize("sessions", [{...}], indirect=True)` says."""
    settings = DatabaseSettings(url=database_url, **getattr(request, "param", {}))
    async with open_database(
        settings, DatabaseTiming(Metrics(), 1, settings.max_waiting)
    ) as sessions:
        yield sessions


async def kill_all_others(sessions: Sessions) -> None:
    async with sessions.write() as session:
        ids = await session.scalars(
            text(
                "SELECT id FROM information_schema.processlist "
                "WHERE id != connection_id() AND db = database()"
            )
        )
        for id in ids.all():
            await session.execute(text(f"KILL {id}"))


async def test_read_session_cannot_write(sessions: Sessions):
    async with sessions.read() as session:
        with pytest.raises(DBAPIError):
            await session.execute(text("DELETE FROM purchases"))


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1 FROM nowhere",
        "SELECT absent FROM outbox",
        "INSERT INTO outbox (absent) VALUES (1)",
    ],
)
async def test_error_of_an_older_schema_says_what_to_do(sessions: Sessions, statement: str):
    async with sessions.write() as session:
        with pytest.raises(DBAPIError) as error:
            await session.execute(text(statement))

    assert reason_of(error.value).endswith("older than this code: python -m app check")


async def test_read_sees_what_was_committed_meanwhile(
    client: httpx.AsyncClient, shop: Shop, resources: Resources
):
    """No snapshot of an earlier transaction hangs on to a pooled connection."""
    purchase = await shop.add_purchase("Before")
    async with resources["sessions"].read() as session:
        query = text("SELECT note FROM purchases WHERE id = :id")
        before = (await session.execute(query, {"id": purchase["id"]})).scalar_one()
        await shop.change(f"/v1/purchases/{purchase['id']}", note="After")
        after = (await session.execute(query, {"id": purchase["id"]})).scalar_one()

    assert (before, after) == ("Before", "After")


@pytest.mark.parametrize(
    "sessions", [{"pool_size": 2, "max_overflow": 0, "pool_timeout": 0.05}], indirect=True
)
async def test_connections_return_to_the_pool_when_a_request_is_cancelled(sessions: Sessions):
    async def hold(held: asyncio.Event) -> None:
        async with sessions.read() as session:
            await session.execute(text("SELECT 1"))
            held.set()
            await asyncio.Event().wait()

    for _ in range(5):
        held = asyncio.Event()
        task = asyncio.create_task(hold(held))
        await held.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async with sessions.read() as session:
        assert (await session.execute(text("SELECT 1"))).scalar_one() == 1


async def test_exhausted_pool_is_a_503_in_time(
    client: httpx.AsyncClient, resources: Resources, settings: Settings
):
    pool = resources["sessions"].read.kw["bind"]
    size = pool.pool.size() + pool.pool._max_overflow
    pool.pool._timeout = 0.05
    held = [await pool.connect() for _ in range(size)]

    response = await client.get("/v1/purchases")
    for connection in held:
        await connection.close()
    afterwards = await client.get("/v1/purchases")

    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    assert afterwards.status_code == 200


@mariadb_only
async def test_killed_connections_fail_no_read(
    client: httpx.AsyncClient, shop: Shop, resources: Resources
):
    purchase = await shop.add_purchase()
    path = f"/v1/purchases/{purchase['id']}"
    await asyncio.gather(*(client.get(path) for _ in range(8)))

    await kill_all_others(resources["sessions"])
    responses = await asyncio.gather(*(client.get(path) for _ in range(8)))

    assert [response.status_code for response in responses] == 8 * [200]


@mariadb_only
@pytest.mark.parametrize("sessions", [{"ping_after": 0.001}], indirect=True)
async def test_idle_connections_are_pinged_before_a_write_uses_them(sessions: Sessions):
    async with sessions.write() as first, sessions.write() as second:
        for session in (first, second):
            await session.execute(text("SELECT 1"))
    async with sessions.read() as session:
        await session.execute(text("SELECT 1"))
    await kill_all_others(sessions)
    await asyncio.sleep(0.01)

    async with sessions.write() as first, sessions.write() as second:
        for session in (first, second):
            assert await session.scalar(text("SELECT 1")) == 1


@mariadb_only
@pytest.mark.parametrize("sessions", [{"statement_timeout": 0.1}], indirect=True)
@pytest.mark.parametrize("role", ["read", "write"])
async def test_long_statement_is_ended_by_the_server(sessions: Sessions, role: str):
    async with getattr(sessions, role)() as session:
        with pytest.raises(OperationalError, match="max_statement_time"):
            await session.execute(
                text("SELECT count(*) FROM seq_1_to_100000000 a, seq_1_to_100000000 b")
            )


@mariadb_only
async def test_migrations_and_imports_have_no_statement_limit(database_url: str):
    engine = create_engine(DatabaseSettings(url=database_url), "maintenance")
    async with engine.connect() as connection:
        limit = await connection.scalar(text("SELECT @@max_statement_time"))
    await engine.dispose()

    assert limit == 0


@mariadb_only
async def test_budget_is_the_sum_over_replicas_and_workers(settings: Settings):
    web = WebSettings(concurrency=3, replicas=2)

    budget = await check_budget(settings.model_copy(update={"web": web}))

    assert budget is not None
    assert budget.needed == 2 * 3 * (20 + 40) + 12
    assert budget.available > 0
    assert budget.fits == (budget.needed <= budget.available)


@mariadb_only
async def test_each_replica_has_a_budget_of_its_own(settings: Settings, database_url: str):
    """Its server's: of all reads, as it may be the last one. The primary's is the same for any."""
    away = "mariadb+asyncmy://shop@127.0.0.1:1/shop"
    database = DatabaseSettings(url=database_url, read_url=f"{database_url},{away}")
    web = WebSettings(concurrency=3, replicas=2)
    changed = settings.model_copy(update={"web": web, "database": database})

    primary = await check_budget(changed)
    [replica] = await check_replica_budgets(changed)

    assert primary is not None
    assert primary.needed == 2 * 3 * (20 + 40 + 1) + 13
    assert replica.needed == 2 * 3 * (15 + 30 + 1) + 11
    assert replica.available == primary.available
    assert f"and {replica.server}'s max_connections is" in str(replica)


def test_budget_that_does_not_fit_prints_its_sum():
    budget = Budget(2, 4, 60, job_workers=1, job_connections=12, available=300)

    assert not budget.fits
    assert "2 replicas x 4 workers x 60 connections" in str(budget)
    assert "1 job workers x 12 = 492, and the server's max_connections is 300" in str(budget)
