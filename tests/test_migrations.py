from pathlib import Path

import pytest
from sqlalchemy import inspect

from app import schema
from app.database import create_engine
from app.settings import DatabaseSettings
from tests.command import finish, start


@pytest.mark.parametrize("empty_database", ["sqlite", "mariadb"], indirect=True)
async def test_migrations_go_up_and_down_and_match_the_models(empty_database: str):
    engine = create_engine(DatabaseSettings(url=empty_database), "maintenance")

    async def tables() -> set[str]:
        async with engine.connect() as connection:
            return set(await connection.run_sync(lambda c: inspect(c).get_table_names()))

    await schema.migrate(engine, "base")
    empty = await tables()
    await schema.migrate(engine)
    full = await tables()
    await schema.check(engine)
    await schema.migrate(engine, "base")
    emptied = await tables()
    await schema.migrate(engine)

    assert await schema.current_revision(engine) == schema.needed_revision()
    assert {"books", "authors", "book_authors"} <= full
    assert empty - {"alembic_version"} == emptied - {"alembic_version"} == set()
    await engine.dispose()


async def test_two_migrations_at_once_do_not_collide(empty_database: str, tmp_path: Path):
    engine = create_engine(DatabaseSettings(url=empty_database), "maintenance")
    await schema.migrate(engine, "base")
    variables = {"DATABASE_URL": empty_database, "REDIS_URL": "redis://127.0.0.1"}

    both = [start(tmp_path, "migrate", **variables) for _ in range(2)]
    results = [finish(process) for process in both]

    assert [(code, errors) for code, _, errors in results] == 2 * [(0, "")]
    assert await schema.current_revision(engine) == schema.needed_revision()
    await engine.dispose()
