import asyncio
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from chassis.database.engines import create_engine
from chassis.database.settings import DatabaseSettings
from chassis.migrations import schema
from chassis.migrations.revision import read_migrations
from tests.command import finish, run, start
from tests.conftest import migrate
from tests.process import free_port
from tests.purchases.model import OwnBase


@pytest.mark.parametrize("empty_database", ["sqlite", "mariadb"], indirect=True)
async def test_migrations_go_up_and_down_and_match_the_models(empty_database: str):
    engine = create_engine(DatabaseSettings(url=empty_database), "maintenance")

    async def tables() -> set[str]:
        async with engine.connect() as connection:
            return set(await connection.run_sync(lambda c: inspect(c).get_table_names()))

    await schema.migrate(engine, "base")
    async with engine.begin() as connection:
        await connection.run_sync(OwnBase.metadata.drop_all)  # those of the tests
    empty = await tables()
    await schema.migrate(engine)
    full = await tables()
    await schema.check(engine)
    await schema.migrate(engine, "base")
    emptied = await tables()
    await migrate(empty_database)

    assert await schema.current_revision(engine) == read_migrations().newest
    assert {"users", "user_sessions", "outbox", "cache_epoch"} <= full
    assert empty - {"alembic_version"} == emptied - {"alembic_version"} == set()
    await engine.dispose()


async def test_two_migrations_at_once_do_not_collide(empty_database: str, tmp_path: Path):
    engine = create_engine(DatabaseSettings(url=empty_database), "maintenance")
    await schema.migrate(engine, "base")
    variables = {"DATABASE_URL": empty_database, "REDIS_URL": "redis://127.0.0.1"}

    migration = partial(run, tmp_path, "migrate", **variables)
    results = await asyncio.gather(*(asyncio.to_thread(migration) for _ in range(2)))

    assert [(code, errors) for code, _, errors in results] == 2 * [(0, "")]
    assert await schema.current_revision(engine) == read_migrations().newest
    await engine.dispose()


async def test_schema_of_newer_code_is_refused_unless_it_is_allowed(
    empty_database: str, tmp_path: Path
):
    variables = {"DATABASE_URL": empty_database, "REDIS_URL": "redis://127.0.0.1"}
    engine = create_engine(DatabaseSettings(url=empty_database), "maintenance")
    needed = read_migrations().newest
    await schema.migrate(engine)

    async def set_revision(revision: str | None) -> None:
        async with engine.begin() as connection:
            update = text("UPDATE alembic_version SET version_num = :revision")
            await connection.execute(update, {"revision": revision})

    await set_revision("9999")
    by_hand = run(tmp_path, "migrate", **variables)
    allowed = run(tmp_path, "migrate", "--allow-newer", **variables)
    left = await schema.current_revision(engine)
    await set_revision(needed)
    await schema.migrate(engine, "-1")
    older = run(tmp_path, "migrate", "--allow-newer", **variables)
    await engine.dispose()

    assert (by_hand[0], left) == (1, "9999")
    assert "the database is ahead of this code, or not ours" in by_hand[2]
    assert allowed == (0, "Schema: 9999, newer than this code needs; left as it is\n", "")
    assert older[0] == 0
    assert older[1].endswith(f" -> {needed}\n")


async def test_new_code_waits_until_the_schema_is_what_it_needs(
    empty_database: str, tmp_path: Path
):
    variables = {"DATABASE_URL": empty_database, "REDIS_URL": "redis://127.0.0.1"}
    engine = create_engine(DatabaseSettings(url=empty_database), "maintenance")
    await schema.migrate(engine)
    await schema.migrate(engine, "-1")

    waiting = start(tmp_path, "await-schema", **variables)
    assert waiting.stderr is not None
    said = await asyncio.to_thread(waiting.stderr.readline)
    still = waiting.poll()
    await schema.migrate(engine)
    code, output, errors = await asyncio.to_thread(finish, waiting)
    again = run(tmp_path, "await-schema", **variables)
    await engine.dispose()

    assert "The schema of the database is older than this code" in said
    assert still is None
    assert (code, output, errors) == again == (0, "", "")


async def test_new_code_waits_for_a_database_that_is_away(tmp_path: Path):
    away = f"mariadb+asyncmy://root@127.0.0.1:{free_port()}/nowhere"
    waiting = start(tmp_path, "await-schema", DATABASE_URL=away, REDIS_URL="redis://127.0.0.1")
    assert waiting.stderr is not None
    said = await asyncio.to_thread(waiting.stderr.readline)
    still = waiting.poll()
    waiting.kill()
    finish(waiting)

    assert said.startswith("The database is unavailable: ")
    assert still is None
