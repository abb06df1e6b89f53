"""`python -m app check`: what it verifies before a start or a deployment."""

import asyncio
import secrets
from collections.abc import Callable
from typing import NamedTuple

from redis.exceptions import RedisError
from sqlalchemy import URL, text
from sqlalchemy.exc import SQLAlchemyError

from chassis.auth.settings import NO_KEY
from chassis.connection_budget import check_budget, check_replica_budgets
from chassis.database.engines import create_engine, reason_of
from chassis.database.settings import database_url, replica_urls
from chassis.database.urls import server_name
from chassis.errors import Unavailable
from chassis.files.storage import CHECKS, Storage, make_storage
from chassis.migrations.revision import BrokenMigrations, read_migrations, read_revisions
from chassis.redis.client import open_redis
from chassis.redis.server import RedisServer
from chassis.service_settings import ChassisSettings
from chassis.settings.sources import unused_variables
from chassis.telemetry.metrics import Metrics

AWAIT_INTERVAL = 1  # s


class Finding(NamedTuple):
    name: str
    ok: bool
    detail: str


async def run_checks(settings: ChassisSettings) -> list[Finding]:
    namespace = settings.cache.namespace
    published = settings.tokens.is_published
    detail = NO_KEY if published else f"ENVIRONMENT={settings.environment}"
    findings = [Finding("settings", not published, detail)]
    findings += [Finding("settings", True, warning) for warning in unused_variables(type(settings))]
    database = await _check_database(settings, "database", database_url(settings.database))
    findings.append(database)
    for url in replica_urls(settings.database):
        findings.append(await _check_database(settings, f"replica {server_name(url)}", url))
    findings.append(await _check_redis("redis", RedisServer(settings.redis, namespace)))
    if settings.jobs.url is not None:
        findings.append(await _check_redis("queue", RedisServer(settings.queue, namespace)))
    findings += await _check_eviction(settings)
    if (storage := make_storage(settings.files, settings.tokens.keys)) is not None:
        findings.append(await _check_files(storage, str(settings.files.url)))
    if settings.mail.url is None:
        detail = "MAIL_URL is not set: mails, and so links to verify an address, wait until it is"
        findings.append(Finding("mail", True, detail))
    if database.ok:
        findings.append(await check_schema(settings))
        findings += await _check_budget(settings)
    return findings


async def _check_database(settings: ChassisSettings, name: str, url: URL) -> Finding:
    shown = url.render_as_string(hide_password=True)
    function = "sqlite_version()" if url.get_backend_name() == "sqlite" else "version()"
    engine = create_engine(settings.database, "maintenance", url)
    try:
        limit = settings.database.connect_timeout
        async with asyncio.timeout(limit), engine.connect() as connection:
            version = await connection.scalar(text(f"SELECT {function}"))
    except (SQLAlchemyError, OSError) as error:
        return Finding(name, False, f"{shown}: {reason_of(error)}")
    finally:
        await engine.dispose()
    return Finding(name, True, f"{shown}, version {version}")


async def _check_redis(name: str, server: RedisServer) -> Finding:
    async with open_redis(server, Metrics()) as redis:
        try:
            info = await redis.info("server")
            primary = await server.find_primary() if server.nodes else None
        except (RedisError, OSError) as error:
            return Finding(name, False, str(error))
    version = info.get("valkey_version") or info.get("redis_version")
    place = "" if primary is None else f", the primary is {primary[0]}:{primary[1]}"
    return Finding(name, True, f"{info.get('server_name', 'redis')} {version}{place}")


async def _check_eviction(settings: ChassisSettings) -> list[Finding]:
    """On a server that evicts, a client could reset its rate limits by filling the cache."""
    server = RedisServer(settings.queue, settings.cache.namespace)
    async with open_redis(server, Metrics()) as redis:
        try:
            memory = await redis.info("memory")
        except (RedisError, OSError):
            return []  # another finding says why
    policy = memory.get("maxmemory_policy", "noeviction")
    if not memory.get("maxmemory") or policy == "noeviction":
        return []
    detail = f"the server of limits and jobs evicts ({policy}); set JOBS_URL to one that does not"
    return [Finding("limits", settings.environment != "production", detail)]


async def _check_files(storage: Storage, url: str) -> Finding:
    key = f"{CHECKS}/{secrets.token_hex(8)}/empty"  # a job deletes it, if this does not
    try:
        await storage.put(key, b"")
        await storage.delete([key])
    except Unavailable as error:
        reason = str(error.__cause__).splitlines()[0]
        return Finding("files", False, f"{url}: {reason}")
    return Finding("files", True, url)


async def check_schema(settings: ChassisSettings) -> Finding:
    engine = create_engine(settings.database, "read")
    try:
        migrations = read_migrations()
        async with engine.connect() as connection:
            revisions = await read_revisions(connection)
    except BrokenMigrations as error:
        return Finding("schema", False, str(error))
    finally:
        await engine.dispose()
    if (shortfall := migrations.shortfall(revisions)) is not None:
        return Finding("schema", False, shortfall)
    shown = f"revision {', '.join(sorted(revisions))}"
    if migrations.newest not in revisions:
        shown += f", newer than this code, which needs {migrations.newest}"
    return Finding("schema", True, shown)


async def await_schema(settings: ChassisSettings, say: Callable[[str], None]) -> None:
    """Return once the database has the schema that this code needs; `say` why that takes longer.

    Raises BrokenMigrations, as no time would mend that.
    """
    read_migrations()
    said = None
    while True:
        try:
            async with asyncio.timeout(settings.database.connect_timeout):
                schema = await check_schema(settings)
        except (SQLAlchemyError, OSError) as error:
            reason = f"The database is unavailable: {reason_of(error)}"
        else:
            if schema.ok:
                return
            reason = schema.detail
        if reason != said:
            say(reason)
            said = reason
        await asyncio.sleep(AWAIT_INTERVAL)


async def _check_budget(settings: ChassisSettings) -> list[Finding]:
    budget = await check_budget(settings)
    if budget is None:
        return [Finding("connections", True, "SQLite has no limit")]
    budgets = [budget, *await check_replica_budgets(settings)]
    return [Finding("connections", each.fits, str(each)) for each in budgets]
