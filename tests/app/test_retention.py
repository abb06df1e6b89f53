"""Expired rows are deleted in short transactions, of all tables in turn."""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import event, func, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.models import RefreshToken, User, UserSession
from app.schemas.user import Role
from app.services.retention import BATCH, RetentionService
from app.settings import Settings
from chassis.clock import now
from chassis.database.engines import Sessions
from chassis.idempotency.model import IdempotencyRecord
from chassis.resources import Resources
from tests.accounts import add_account
from tests.databases import mariadb_only
from tests.process import TIMEOUT

MANY = 20_000
PASSWORD = "a long password"
LONG_AGO = timedelta(days=200)


@pytest.fixture
async def user_id(resources: Resources) -> int:
    async with resources["sessions"].write() as session:
        await add_account(session, Role.READER)
        return (await session.scalars(select(User.id))).one()


async def add_expired(
    resources: Resources, user_id: int, *, responses: int = 0, sessions: int = 0, tokens: int = 0
) -> None:
    """So many of each; the tokens are all of one session, which is not past its last day."""
    past = now() - LONG_AGO
    rows: dict[Any, list[dict[str, Any]]] = {
        IdempotencyRecord: [
            {"digest": secrets.token_hex(32), "fingerprint": "", "response": "", "expires_at": past}
            for _ in range(responses)
        ],
        UserSession: [{"user_id": user_id, "created_at": past} for _ in range(sessions)],
    }
    if tokens:
        rows[UserSession] += [{"id": 7, "user_id": user_id, "created_at": now()}]
        rows[RefreshToken] = [
            {"digest": secrets.token_hex(32), "session_id": 7, "expires_at": past}
            for _ in range(tokens)
        ]
    async with resources["sessions"].write.begin() as session:
        for model, values in rows.items():
            for value in [values[at : at + 5000] for at in range(0, len(values), 5000)]:
                await session.execute(insert(model), value)


async def counts(resources: Resources) -> list[int]:
    """Of answers, sessions and tokens."""
    async with resources["sessions"].current() as session:
        return [
            await session.scalar(select(func.count()).select_from(model)) or 0
            for model in (IdempotencyRecord, UserSession, RefreshToken)
        ]


@contextmanager
def deletions(sessions: Sessions) -> Iterator[list[dict[str, int]]]:
    """Of each transaction: how many rows of which table it deleted."""
    done: list[dict[str, int]] = [{}]

    def count(_: Any, __: Any, statement: str, parameters: Any, ___: Any, many: bool) -> None:
        if statement.startswith("DELETE FROM "):
            table = statement.split()[2]
            assert table not in done[-1]
            done[-1][table] = len(parameters) if many else 1

    def commit(_: Any) -> None:
        done.append({})

    engine = sessions.write.kw["bind"].sync_engine
    event.listen(engine, "before_cursor_execute", count)
    event.listen(engine, "commit", commit)
    try:
        yield done
    finally:
        event.remove(engine, "before_cursor_execute", count)
        event.remove(engine, "commit", commit)


@pytest.mark.drill
async def test_a_large_table_keeps_no_other_waiting_and_transactions_are_short(
    resources: Resources, user_id: int, settings: Settings
):
    await add_expired(resources, user_id, responses=BATCH + 1, sessions=BATCH + 1, tokens=MANY)

    with deletions(resources["sessions"]) as done:
        await RetentionService(resources).clean(seconds=600)  # of a busy machine

    assert await counts(resources) == [0, 1, 0]  # that of the account's access token
    first = {table for transaction in done[:9] for table in transaction}
    assert first == {"idempotency_records", "user_sessions", "refresh_tokens"}
    assert sum(each.get("idempotency_records", 0) for each in done[:9]) == BATCH + 1
    assert sum(each.get("user_sessions", 0) for each in done[:9]) == BATCH + 1
    assert max(rows for each in done for rows in each.values()) == BATCH
    assert max(len(each) for each in done) <= 2  # tokens, and sessions that have none left
    assert sum(each.get("refresh_tokens", 0) for each in done) == MANY


async def test_retention_goes_on_where_it_was_out_of_time(
    resources: Resources, user_id: int, settings: Settings
):
    service = RetentionService(resources)
    await add_expired(resources, user_id, responses=3 * BATCH, tokens=3 * BATCH)

    await service.clean(seconds=0)
    begun = await counts(resources)
    await service.clean()

    assert begun == [2 * BATCH, 2, 2 * BATCH]
    assert await counts(resources) == [0, 1, 0]


async def test_session_past_its_last_day_may_have_any_number_of_tokens(
    resources: Resources, user_id: int, settings: Settings
):
    later = now() + LONG_AGO
    async with resources["sessions"].write.begin() as session:
        old = {"id": 7, "user_id": user_id, "created_at": now() - LONG_AGO}
        await session.execute(insert(UserSession), old)
        tokens = [
            {"digest": f"{n:064}", "session_id": 7, "expires_at": later}
            for n in range(2 * BATCH + 1)
        ]
        await session.execute(insert(RefreshToken), tokens)

    with deletions(resources["sessions"]) as done:
        await RetentionService(resources).clean()

    assert await counts(resources) == [0, 1, 0]
    deleted = [each["refresh_tokens"] for each in done if "refresh_tokens" in each]
    assert deleted == [BATCH, BATCH, 1]


REFUSALS = {
    "sqlite": "BEGIN SELECT RAISE(ABORT, 'refused'); END",
    "mariadb": "FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'refused'",
}


async def test_table_that_cannot_be_cleaned_keeps_no_other_from_it(
    resources: Resources, user_id: int, settings: Settings, database_url: str
):
    await add_expired(resources, user_id, responses=1, sessions=1, tokens=1)
    refusal = next(value for name, value in REFUSALS.items() if database_url.startswith(name))
    trigger = f"CREATE TRIGGER refusal BEFORE DELETE ON idempotency_records {refusal}"

    await execute(resources, trigger)
    try:
        with pytest.raises(DBAPIError, match="refused"):
            await RetentionService(resources).clean()
    finally:
        await execute(resources, "DROP TRIGGER refusal")

    assert await counts(resources) == [1, 1, 0]


async def execute(resources: Resources, statement: str) -> None:
    async with resources["sessions"].write.begin() as session:
        await session.execute(text(statement))


class HeldSession(AsyncSession):
    """Its transaction is as long as one likes."""

    reached = asyncio.Event()
    released = asyncio.Event()

    async def commit(self) -> None:
        self.reached.set()
        await self.released.wait()
        await super().commit()


@mariadb_only
async def test_retention_waits_for_no_row_that_others_have_locked(
    resources: Resources, user_id: int, settings: Settings
):
    await add_expired(resources, user_id, responses=BATCH + 5, sessions=BATCH + 5, tokens=BATCH + 5)

    async with resources["sessions"].write() as other:
        for model in (IdempotencyRecord, RefreshToken):
            locked = select(model).order_by(model.expires_at).limit(1)
            await other.execute(locked.with_for_update())
        old = select(UserSession).where(UserSession.created_at < now() - LONG_AGO / 2)
        await other.execute(old.limit(1).with_for_update())
        await RetentionService(resources).clean()
        left = await counts(resources)

    assert left == [1, 3, 1]  # with the session of that token, and the account's own


@mariadb_only
@pytest.mark.parametrize("table", ["responses", "tokens"])
async def test_logins_need_no_lock_of_a_batch_that_is_being_deleted(
    client: httpx.AsyncClient, resources: Resources, settings: Settings, table: str
):
    """They may wait for one that deletes sessions, as a foreign key locks the gap between two, and
    on SQLite, which has one writer.
    """
    user = {"email": "mary@example.com", "name": "Mary", "password": PASSWORD}
    form = {"grant_type": "password", "username": user["email"], "password": PASSWORD}
    made = await client.post("/v1/users", json=user)
    earlier = (await client.post("/v1/tokens", data=form)).json()
    await add_expired(resources, made.json()["id"], **{table: BATCH})
    if table == "tokens":  # of a session that has another
        values = {"digest": "good", "session_id": 7, "expires_at": now() + LONG_AGO}
        async with resources["sessions"].write.begin() as session:
            await session.execute(insert(RefreshToken), values)
    HeldSession.reached, HeldSession.released = asyncio.Event(), asyncio.Event()
    engine = resources["sessions"].write.kw["bind"]
    held = async_sessionmaker(engine, class_=HeldSession, expire_on_commit=False, autoflush=False)
    sessions = replace(resources["sessions"], write=held)  # type: ignore[arg-type]
    service = RetentionService({**resources, "sessions": sessions})
    batches = {"responses": service._clean_records, "tokens": service._clean_tokens}

    async with asyncio.timeout(TIMEOUT):
        batch = asyncio.create_task(batches[table]())
        await HeldSession.reached.wait()
        key = {"Idempotency-Key": "a key"}
        login = await client.post("/v1/tokens", data=form, headers=key)
        body = {"refresh_token": earlier["refresh_token"]}
        refreshed = await client.post("/v1/tokens/refresh", json=body)
        mine = {"Authorization": f"Bearer {login.json()['access_token']}"}
        logout = await client.delete("/v1/tokens", headers=mine)
        HeldSession.released.set()

        assert await batch == BATCH
    assert (login.status_code, refreshed.status_code, logout.status_code) == (200, 200, 204)
