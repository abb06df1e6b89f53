from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from app.database import create_engine
from app.main import create_app
from app.resources import Resources, open_resources
from app.schema_revision import read_migrations
from app.settings import DatabaseSettings, RedisSettings, Settings
from tests.command import run
from tests.conftest import client_of, migrate
from tests.databases import sqlite_only
from tests.process import running
from tests.queries import recorded

NEWEST = str(read_migrations().newest)


async def test_health_asks_nobody(client: httpx2.AsyncClient, resources: Resources):
    with recorded(resources["sessions"]) as queries:
        answer = await client.get("/health")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert queries == []


async def test_service_is_ready_without_redis_and_says_so(settings: Settings):
    gone = settings.model_copy(update={"redis": RedisSettings(url="unix:///nowhere.sock")})
    async with open_resources(gone) as resources, client_of(create_app(gone), resources) as client:
        answer = await client.get("/health/ready")

    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "database": "ok", "redis": "unavailable"}


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
    client: httpx2.AsyncClient,
    resources: Resources,
    database_url: str,
    change: str,
    undo: str,
    found: str,
):
    async with changed(database_url, change, undo):
        answers = [await client.get("/health/ready") for _ in range(2)]
    after = await client.get("/health/ready")
    with recorded(resources["sessions"]) as queries:
        later = await client.get("/health/ready")

    assert [answer.status_code for answer in answers] == [503, 503]
    assert answers[0].json()["detail"] == (
        f"The schema of the database is older than this code: revision {found}, "
        f"needed is {NEWEST}; run: python -m app migrate"
    )
    assert (after.status_code, later.status_code) == (200, 200)
    assert [query.statement for query in queries] == ["SELECT 1"]  # the schema is known by now


async def test_a_newer_schema_is_ready_as_after_a_rollback(
    client: httpx2.AsyncClient, database_url: str
):
    newer = "UPDATE alembic_version SET version_num = '9999'"
    async with changed(database_url, newer, newer.replace("9999", NEWEST)):
        answer = await client.get("/health/ready")

    assert answer.status_code == 200


@sqlite_only
async def test_check_tells_older_from_newer(environment: dict[str, Any], tmp_path: Path):
    url = f"sqlite+aiosqlite:///{tmp_path}/books.db"
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
    environment |= {"DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/books.db"}
    assert run(tmp_path, "migrate", "--to", "0001", **environment)[0] == 0

    async with (
        running(tmp_path / "log", **environment) as service,
        httpx2.AsyncClient(base_url=service.url) as client,
    ):
        before = await client.get("/health/ready")
        assert run(tmp_path, "migrate", **environment)[0] == 0
        after = await client.get("/health/ready")

    assert (before.status_code, after.status_code) == (503, 200)
    [line] = service.messages("is older than this code: revision 0001")
    assert line.endswith("run: python -m app migrate")
