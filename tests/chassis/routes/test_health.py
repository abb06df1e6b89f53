from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import text

from app.settings import Settings
from chassis.database.engines import create_engine
from chassis.database.settings import DatabaseSettings
from chassis.jobs.settings import JobsSettings
from chassis.migrations.revision import read_migrations
from chassis.redis.settings import RedisSettings
from chassis.resources import Resources, open_resources
from tests.command import run
from tests.conftest import client_of, migrate
from tests.databases import sqlite_only
from tests.process import running
from tests.queries import recorded
from tests.service import create_app

NEWEST = str(read_migrations().newest)


async def test_health_asks_nobody(client: httpx.AsyncClient, resources: Resources):
    with recorded(resources["sessions"]) as queries:
        response = await client.get("/health")

    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert queries == []


@pytest.mark.parametrize("path", ["/health?deep=1", "/health?x", "/health/ready?probe=1&probe=2"])
async def test_query_of_a_health_check_is_ignored(client: httpx.AsyncClient, path: str):
    response, head = await client.get(path), await client.head(path)

    assert (response.status_code, head.status_code) == (200, 200)


async def test_service_is_ready_without_redis_and_says_so(settings: Settings):
    gone = settings.model_copy(update={"redis": RedisSettings(url="unix:///nowhere.sock")})
    async with open_resources(gone) as resources, client_of(create_app(gone), resources) as client:
        response = await client.get("/health/ready")

    assert response.status_code == 200
    assert response.json() == {"status": "ready", "database": "ok", "redis": "unavailable"}


async def test_service_is_ready_without_the_server_of_jobs_and_limits_and_says_so(
    settings: Settings,
):
    gone = settings.model_copy(update={"jobs": JobsSettings(url="unix:///nowhere.sock")})
    async with open_resources(gone) as resources, client_of(create_app(gone), resources) as client:
        response = await client.get("/health/ready")

    said = {"status": "ready", "database": "ok", "redis": "ok", "queue": "unavailable"}
    assert (response.status_code, response.json()) == (200, said)


@asynccontextmanager
async def changed(url: str, change: str, undo: str) -> AsyncIterator[None]:
    """The table of the schema's revision, which is put back in the end."""
    engine = create_engine(DatabaseSettings(url=url), "maintenance")
    try:
        async with engine.begin() as connection:
            await connection.execute(text(change))
        yield
    finally:
        async with engine.begin() as connection:
            await connection.execute(text(undo))
        await engine.dispose()


@pytest.mark.parametrize(
    ("change", "undo", "found"),
    [
        (
            "UPDATE alembic_version SET version_num = '0001'",
            f"UPDATE alembic_version SET version_num = '{NEWEST}'",
            "0001",
        ),
        (
            "DELETE FROM alembic_version",
            f"INSERT INTO alembic_version VALUES ('{NEWEST}')",
            "none",
        ),
        (
            "ALTER TABLE alembic_version RENAME TO alembic_version_away",
            "ALTER TABLE alembic_version_away RENAME TO alembic_version",
            "none",
        ),
    ],
    ids=["older", "empty", "missing"],
)
async def test_an_older_schema_is_not_ready_until_it_is_migrated(
    client: httpx.AsyncClient,
    resources: Resources,
    database_url: str,
    change: str,
    undo: str,
    found: str,
):
    async with changed(database_url, change, undo):
        responses = [await client.get("/health/ready") for _ in range(2)]
    after = await client.get("/health/ready")
    with recorded(resources["sessions"]) as queries:
        later = await client.get("/health/ready")

    assert [response.status_code for response in responses] == [503, 503]
    assert responses[0].json()["detail"] == (
        f"The schema of the database is older than this code: revision {found}, "
        f"needed is {NEWEST}; run: python -m app migrate"
    )
    assert (after.status_code, later.status_code) == (200, 200)
    assert [query.statement for query in queries] == ["SELECT 1"]  # the schema is known by now


async def test_a_newer_schema_is_ready_as_after_a_rollback(
    client: httpx.AsyncClient, database_url: str
):
    newer = "UPDATE alembic_version SET version_num = '9999'"
    async with changed(database_url, newer, newer.replace("9999", NEWEST)):
        response = await client.get("/health/ready")

    assert response.status_code == 200


@sqlite_only
async def test_check_tells_older_from_newer(environment: dict[str, Any], tmp_path: Path):
    url = f"sqlite+aiosqlite:///{tmp_path}/shop.db"
    environment |= {"DATABASE_URL": url, "COLUMNS": 300}
    await migrate(url)
    update = "UPDATE alembic_version SET version_num = '{}'"
    async with changed(url, update.format("0001"), update.format("9999")):
        older = run(tmp_path, "check", **environment)
    newer = run(tmp_path, "check", **environment)

    assert older[0] == 1
    assert "is older than this code: revision 0001" in older[1]
    assert "run: python -m app migrate" in older[1]
    assert newer[0] == 0
    assert f"revision 9999, newer than this code, which needs {NEWEST}" in newer[1]


@sqlite_only
async def test_a_start_on_an_older_schema_says_so_and_recovers(
    environment: dict[str, Any], tmp_path: Path
):
    environment |= {"DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/shop.db"}
    assert run(tmp_path, "migrate", "--to", "0001", **environment)[0] == 0

    async with (
        running(tmp_path / "log", **environment) as service,
        service.client() as client,
    ):
        before = await client.get("/health/ready")
        assert run(tmp_path, "migrate", **environment)[0] == 0
        after = await client.get("/health/ready")

    assert (before.status_code, after.status_code) == (503, 200)
    [line] = service.messages("is older than this code: revision 0001")
    assert line.endswith("run: python -m app migrate")
