"""What `python -m app check` verifies before a start or a deploy."""

import asyncio
import secrets
from typing import NamedTuple

from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.budget import connection_budget
from app.database import Role, create_engine, database_url, reason_of
from app.errors import Unavailable
from app.metrics import Metrics
from app.redis import open_redis
from app.schema_revision import BrokenMigrations, read_migrations, read_revisions
from app.settings import NO_KEY, RedisSettings, Settings, settings_warnings
from app.storage import Storage, make_storage


class Finding(NamedTuple):
    name: str
    ok: bool
    detail: str


async def run_checks(settings: Settings) -> list[Finding]:
    published = settings.tokens.is_published
    detail = NO_KEY if published else f"ENVIRONMENT={settings.environment}"
    findings = [Finding("settings", not published, detail)]
    findings += [Finding("settings", True, warning) for warning in settings_warnings()]
    database = await _check_database(settings, "write")
    findings.append(database)
    if settings.database.read_url is not None:
        findings.append(await _check_database(settings, "replica"))
    findings.append(await _check_redis("redis", settings.redis))
    if settings.jobs.url is not None:
        queue = RedisSettings(url=settings.jobs.url, password=settings.jobs.password)
        findings.append(await _check_redis("queue", queue))
    if (storage := make_storage(settings)) is not None:
        findings.append(await _check_files(storage, str(settings.files.url)))
    if database.ok:
        findings.append(await check_schema(settings))
        findings.append(await _check_budget(settings))
    return findings


async def _check_database(settings: Settings, role: Role) -> Finding:
    name = "replica" if role == "replica" else "database"
    url = database_url(settings.database, role)
    shown = url.render_as_string(hide_password=True)
    version = "sqlite_version()" if url.get_backend_name() == "sqlite" else "version()"
    engine = create_engine(settings.database, role)
    try:
        limit = settings.database.connect_timeout
        async with asyncio.timeout(limit), engine.connect() as connection:
            answer = await connection.scalar(text(f"SELECT {version}"))
    except (SQLAlchemyError, OSError) as error:
        return Finding(name, False, f"{shown}: {reason_of(error)}")
    finally:
        await engine.dispose()
    return Finding(name, True, f"{shown}, version {answer}")


async def _check_redis(name: str, settings: RedisSettings) -> Finding:
    async with open_redis(settings, Metrics()) as redis:
        try:
            info = await redis.info("server")
        except (RedisError, OSError) as error:
            return Finding(name, False, str(error))
    version = info.get("valkey_version") or info.get("redis_version")
    return Finding(name, True, f"{info.get('server_name', 'redis')} {version}")


async def _check_files(storage: Storage, url: str) -> Finding:
    key = f"covers/check/{secrets.token_hex(8)}/empty"  # swept, should this end halfway
    try:
        await storage.put(key, b"")
        await storage.delete([key])
    except Unavailable as error:
        reason = str(error.__cause__).splitlines()[0]
        return Finding("files", False, f"{url}: {reason}")
    return Finding("files", True, url)


async def check_schema(settings: Settings) -> Finding:
    engine = create_engine(settings.database, "read")
    try:
        migrations = read_migrations()
        async with engine.connect() as connection:
            revisions = await read_revisions(connection)
    except BrokenMigrations as error:
        return Finding("schema", False, str(error))
    finally:
        await engine.dispose()
    if (lack := migrations.lack(revisions)) is not None:
        return Finding("schema", False, lack)
    shown = f"revision {', '.join(sorted(revisions))}"
    if migrations.newest not in revisions:
        shown += f", newer than this code, which needs {migrations.newest}"
    return Finding("schema", True, shown)


async def _check_budget(settings: Settings) -> Finding:
    budget = await connection_budget(settings)
    if budget is None:
        return Finding("connections", True, "SQLite has no limit")
    return Finding("connections", budget.fits, str(budget))
