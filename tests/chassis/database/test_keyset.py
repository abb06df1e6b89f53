"""Keyset pages by every type of column, straight on both databases."""

import asyncio
import enum
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from random import Random
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from chassis.database.columns import Id, UTCDateTime
from chassis.database.keyset import Sort
from chassis.resources import Resources
from tests.chassis.database.test_purchases import in_metadata
from tests.purchases.model import OwnBase


class Size(enum.StrEnum):
    S = "small"
    L = "large"


SECOND = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
VALUES: dict[str, tuple[Any, list[Any]]] = {
    "small": (sa.SmallInteger(), [-(2**15), 0, 2**15 - 1]),
    "integer": (sa.Integer(), [-(2**31), 2**31 - 1]),
    "big": (sa.BigInteger(), [-(2**63), -1, 2**63 - 1]),
    "text": (sa.String(100), ["", "a", "A", "é", "\U0001f381", '"\\\n', "z" * 100]),
    "numeric": (sa.Numeric(20, 6), [Decimal("-1.5"), Decimal("0"), Decimal("12345678.000001")]),
    "money": (sa.Numeric(12, 2), [Decimal("9.9"), Decimal("9.90"), Decimal("-0.01")]),
    "plain": (sa.Numeric(5, 2, asdecimal=False), [0.1, 1.23, -999.99]),
    "double": (sa.Double(), [0.1, 0.1 + 0.2, 0.3, -1e-300, 5e-324, 1.7976931348623157e308, -0.0]),
    "boolean": (sa.Boolean(), [False, True]),
    "moment": (
        UTCDateTime(),
        [
            SECOND,
            SECOND + timedelta(microseconds=1),
            datetime(1, 1, 1, tzinfo=UTC),
            datetime.max.replace(tzinfo=UTC),
        ],
    ),
    "naive": (sa.DateTime(), [datetime(2026, 3, 1, 9, 30), datetime(1, 1, 1)]),
    "day": (sa.Date(), [date(1, 1, 1), date(2026, 3, 1), date.max]),
    "clock": (sa.Time(), [time(0), time(9, 30), time(23, 59, 59)]),
    "uuid": (sa.Uuid(), [UUID(int=n << 60) for n in (0, 7, 2**67 + 1, 2**68 - 1)]),
    "hex": (sa.Uuid(native_uuid=False, as_uuid=False), [UUID(int=n).hex for n in (1, 2**127)]),
    "size": (sa.Enum(Size, native_enum=False), list(Size)),
}
TABLE = sa.Table(
    "every_type",
    OwnBase.metadata,
    sa.Column("id", Id, primary_key=True),
    *(sa.Column(name, type_, nullable=False) for name, (type_, _) in VALUES.items()),
    *(sa.Column(f"{name}_or_null", type_) for name, (type_, _) in VALUES.items()),
    mariadb_charset="utf8mb4",
    mariadb_collate="utf8mb4_nopad_bin",
)


@pytest.fixture(scope="module", autouse=True)
def table(database_url: str) -> Iterator[None]:
    async def fill() -> None:
        await in_metadata(database_url, TABLE.create)
        await in_metadata(database_url, lambda c: c.execute(sa.insert(TABLE), rows()))

    asyncio.run(fill())
    yield
    asyncio.run(in_metadata(database_url, TABLE.drop))


def rows() -> list[dict[str, Any]]:
    random = Random(7)
    return [
        {name: random.choice(values) for name, (_, values) in VALUES.items()}
        | {
            f"{name}_or_null": random.choice([None, *values])
            for name, (_, values) in VALUES.items()
        }
        for _ in range(30)
    ]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("name", [*VALUES, *(f"{name}_or_null" for name in VALUES)])
async def test_walk_sees_each_row_once_in_the_purchase_of_the_database(
    resources: Resources, name: str, descending: bool
):
    sort = Sort(name, TABLE.c[name], TABLE.c.id, descending)
    everything = sa.select(TABLE.c.id, TABLE.c[name]).order_by(*sort.by(TABLE))
    page = everything.limit(3)

    walked: list[Any] = []
    async with resources["sessions"].read() as session:
        expected: Any = (await session.execute(everything)).all()
        found: Any = (await session.execute(page)).all()
        while found:
            walked += found
            assert len(walked) <= len(expected)
            params = sort.cursor_params(sort.cursor(SimpleNamespace(**found[-1]._mapping)))
            found = (await session.execute(page.where(sort.after()), params)).all()

    nulls = [row[1] is None for row in expected]
    assert walked == expected
    assert len(walked) == 30
    assert nulls == sorted(nulls, reverse=not descending)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("name", [*VALUES, *(f"{name}_or_null" for name in VALUES)])
async def test_rows_until_one_are_it_and_those_before_it(
    resources: Resources, name: str, descending: bool
):
    sort = Sort(name, TABLE.c[name], TABLE.c.id, descending)
    everything = sa.select(*sort.columns).order_by(*sort.by(TABLE))

    async with resources["sessions"].read() as session:
        expected = (await session.execute(everything)).all()
        found = [
            (await session.execute(everything.where(sort.until()), sort.until_params(row))).all()
            for row in expected
        ]

    assert found == [expected[: number + 1] for number in range(len(expected))]


@pytest.mark.parametrize(
    ("type_", "reason"),
    [
        (sa.Float(), "Double"),
        (sa.Numeric(20, 2, asdecimal=False), "fewer digits"),
        (sa.Enum(Size), "native_enum"),
        (sa.Text(), "characters"),
        (sa.String(5000), "characters"),
        (sa.LargeBinary(), "LargeBinary"),
        (sa.JSON(), "JSON"),
    ],
    ids=str,
)
def test_a_column_that_no_cursor_can_hold_is_refused_when_the_sort_is_made(type_: Any, reason: str):
    with pytest.raises(TypeError, match=reason):
        Sort("value", sa.column("value", type_), TABLE.c.id)


def test_nulls_need_a_tie_that_is_never_null():
    with pytest.raises(TypeError, match="tie"):
        Sort("text", TABLE.c.text_or_null)
    with pytest.raises(TypeError, match="tie"):
        Sort("text", TABLE.c.text, TABLE.c.text_or_null)


def test_a_value_of_another_type_than_the_columns_makes_no_cursor():
    with pytest.raises(ValueError, match="Unexpected"):
        Sort("id", TABLE.c.id).cursor(SimpleNamespace(id="seven"))
