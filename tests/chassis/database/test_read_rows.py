import asyncio
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Select, bindparam, func, select, text
from sqlalchemy.exc import OperationalError, StatementError
from sqlalchemy.util import greenlet_spawn

from chassis.database.engines import Sessions
from chassis.database.read_session import read_rows
from chassis.database.timing import TimedPool
from chassis.resources import Resources
from tests.chassis.database.test_database import kill_all_others, sessions
from tests.databases import mariadb_only
from tests.purchases.model import Purchase
from tests.shop import Shop

__all__ = ["sessions"]

ONE = select(bindparam("number", type_=Purchase.id.type).label("number"))
PURCHASE_BY_ID = select(Purchase.__table__).where(Purchase.id == bindparam("id"))
SLEEP = select(func.sleep(bindparam("seconds")))


def pool_of(sessions: Sessions) -> TimedPool:
    return sessions.pools["read"]


async def test_rows_are_those_of_execute(shop: Shop, resources: Resources):
    purchase = await shop.add_purchase()
    parameters = {"id": purchase["id"]}

    async with resources["sessions"].read() as session:
        rows = await read_rows(session, PURCHASE_BY_ID, parameters)
        expected = (await session.execute(PURCHASE_BY_ID, parameters)).all()
    async with resources["sessions"].write() as session:
        written = await read_rows(session, PURCHASE_BY_ID, parameters)

    assert [tuple(row) for row in rows] == expected == written
    assert rows[0][0] == purchase["id"]


async def test_a_connection_is_taken_for_one_statement(sessions: Sessions):
    async with sessions.read() as session:
        await read_rows(session, ONE, {"number": 1})

        assert pool_of(sessions).checkedout() == 0
        assert pool_of(sessions).checkedin() == 1


async def test_a_missing_parameter_is_no_null(sessions: Sessions):
    async with sessions.read() as session:
        with pytest.raises(LookupError):
            await read_rows(session, ONE, {})


async def test_an_unfit_value_raises_what_execute_raises(sessions: Sessions):
    query = select(Purchase.id).where(Purchase.created_at == bindparam("at"))
    value = datetime(2026, 1, 1)  # without an offset from UTC

    async with sessions.read() as session:
        with pytest.raises(StatementError) as expected:
            await session.execute(query, {"at": value})
    async with sessions.read() as session:
        with pytest.raises(type(expected.value)):
            await read_rows(session, query, {"at": value})


@mariadb_only
async def test_a_cancelled_read_leaves_no_reply_to_the_next(sessions: Sessions):
    async def read(query: Select[Any], **parameters: float) -> Any:
        async with sessions.read() as session:
            return (await read_rows(session, query, parameters))[0][0]

    await read(ONE, number=1)
    reading = asyncio.create_task(read(SLEEP, seconds=1))
    while not pool_of(sessions).checkedout():
        await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)

    assert [await read(ONE, number=number) for number in (2, 3)] == [2, 3]
    assert pool_of(sessions).checkedout() == 0


@mariadb_only
async def test_a_killed_connection_is_replaced(sessions: Sessions):
    async with sessions.read() as session:
        await read_rows(session, ONE, {"number": 1})
    await kill_all_others(sessions)

    async with sessions.read() as session:
        assert (await read_rows(session, ONE, {"number": 2}))[0][0] == 2


@mariadb_only
@pytest.mark.parametrize("sessions", [{"statement_timeout": 0.1}], indirect=True)
async def test_a_long_read_is_ended_by_the_server(sessions: Sessions):
    numbers = text("seq_1_to_100000000 a, seq_1_to_100000000 b")
    async with sessions.read() as session:
        with pytest.raises(OperationalError, match="max_statement_time"):
            await read_rows(session, select(func.count()).select_from(numbers), {})
        assert pool_of(sessions).checkedout() == 0

        await read_rows(session, ONE, {"number": 1})


@pytest.mark.parametrize("sessions", [{"pool_size": 4, "max_overflow": 8}], indirect=True)
async def test_connections_of_a_burst_are_closed_once_they_are_not_used(sessions: Sessions):
    pool = pool_of(sessions)

    async def open_at_once(number: int) -> None:
        held = [await greenlet_spawn(pool.connect) for _ in range(number)]
        for connection in held:
            connection.close()

    await open_at_once(9)
    kept = pool.checkedin()
    await greenlet_spawn(pool.shrink)  # all were used until now
    await open_at_once(5)
    in_use = pool.checkedin()
    await greenlet_spawn(pool.shrink)
    used_again = pool.checkedin()
    await greenlet_spawn(pool.shrink)

    assert (kept, in_use, used_again, pool.checkedin()) == (9, 9, 5, 3)
    assert pool.opened_above_size() == 0
    await open_at_once(9)
