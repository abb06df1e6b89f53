"""Transactions that the database undoes to end a deadlock are run again; no client sees them."""

import ast
import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.database.transactions import REPEATS, retry_on_deadlock
from chassis.resources import Resources
from tests.databases import mariadb_only
from tests.process import ROOT, TIMEOUT
from tests.purchases.model import Payer
from tests.shop import Shop, purchase


def deadlocks(resources: Resources) -> float:
    metrics = resources["metrics"].registry
    return metrics.get_sample_value("database_deadlocks_total") or 0


@mariadb_only
async def test_two_that_lock_rows_in_opposite_order_both_succeed(resources: Resources, shop: Shop):
    """The service with sessions of its own: here a function."""
    first, second = [await shop.add_payer(name) for name in ("A", "B")]
    meet = asyncio.Barrier(2)
    runs = 0

    @retry_on_deadlock
    async def rename(ids: list[int]) -> None:
        nonlocal runs
        runs += 1
        async with resources["sessions"].write() as session:
            for id in ids:
                renamed = Payer.name + str(ids[0])
                await session.execute(update(Payer).where(Payer.id == id).values(name=renamed))
                if id == ids[0] and runs <= 2:
                    await meet.wait()
            await session.commit()

    await asyncio.gather(rename([first, second]), rename([second, first]))

    assert runs == 3
    assert deadlocks(resources) == 1
    names = {each["name"][0]: each["name"] for each in await shop.walk("/v1/payers")}
    assert {len(name) for name in names.values()} == {1 + len(str(first)) + len(str(second))}


@mariadb_only
async def test_a_change_that_the_database_undoes_is_made_in_the_same_request(
    resources: Resources, shop: Shop
):
    """A service with the session of a dependency."""
    payer = await shop.add_payer()
    purchase = await shop.add_purchase(payer_id=payer)
    path = f"/v1/purchases/{purchase['id']}"

    async with resources["sessions"].write() as other:
        await hold(other, payer, shop)
        patch = asyncio.create_task(shop.change(path, note="Changed"))
        await until_somebody_waits(resources)
        await other.execute(text(f"UPDATE purchases SET version = 7 WHERE id = {purchase['id']}"))
        await other.commit()
    response = await patch

    assert response.status_code == 200, response.text
    assert (response.json()["note"], response.json()["version"]) == ("Changed", 8)
    assert deadlocks(resources) == 1


@mariadb_only
async def test_an_idempotency_key_is_taken_again_with_what_was_undone(
    client: httpx.AsyncClient, resources: Resources, shop: Shop
):
    payer = await shop.add_payer()
    headers = shop.editor | {"Idempotency-Key": "key"}
    body = purchase(payer_id=payer)

    async with resources["sessions"].write() as other:
        await hold(other, payer, shop)
        post = asyncio.create_task(client.post("/v1/purchases", json=body, headers=headers))
        await until_somebody_waits(resources)
        await other.execute(text("SELECT * FROM idempotency_records FOR UPDATE"))
        await other.commit()
    responses = [await post, await client.post("/v1/purchases", json=body, headers=headers)]

    assert [response.status_code for response in responses] == [201, 201]
    assert "Idempotency-Replayed" in responses[1].headers
    assert deadlocks(resources) == 1
    assert len(await shop.walk("/v1/purchases")) == 1


async def hold(session: AsyncSession, payer: int, shop: Shop) -> None:
    """Lock the payer, and change more than others: the database undoes the one with less."""
    extra = [await shop.add_payer(f"Another {number}") for number in range(9)]
    changed = update(Payer).where(Payer.id.in_([payer, *extra])).values(version=2)
    await session.execute(changed)


async def until_somebody_waits(resources: Resources) -> None:
    """Until a transaction waits for a lock."""
    wanted = "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
    async with asyncio.timeout(TIMEOUT), resources["sessions"].current() as session:
        waits = False
        while not waits:
            # The server's own view is up to 0.1 s old: at first it may still show another test.
            await asyncio.sleep(0.15)
            waits = await session.scalar(text(wanted))


async def test_what_the_database_goes_on_undoing_is_given_up():
    runs = 0

    @retry_on_deadlock
    async def never() -> None:
        nonlocal runs
        runs += 1
        raise OperationalError("", {}, RuntimeError(1213, "Deadlock"))

    with pytest.raises(OperationalError):
        await never()

    assert runs == REPEATS + 1


async def test_a_lock_that_is_waited_for_too_long_is_not_waited_for_again():
    runs = 0

    @retry_on_deadlock
    async def wait() -> None:
        nonlocal runs
        runs += 1
        raise OperationalError("", {}, RuntimeError(1205, "Lock wait timeout exceeded"))

    with pytest.raises(OperationalError):
        await wait()

    assert runs == 1


@mariadb_only
async def test_changes_at_the_same_rows_from_all_sides_fail_nobody(
    client: httpx.AsyncClient, resources: Resources, shop: Shop
):
    """Payers renamed, their purchases edited, moved, made and deleted, at once: no 5xx, no 409.

    By no more clients than there are connections to write with: none of them waits for one. SQLite
    has one writer at a time, so there it would only show how fast the machine is.
    """
    payers = [await shop.add_payer(f"Payer {number}") for number in range(4)]
    purchases = [
        (await shop.add_purchase(f"P {n}", payer_id=random.choice(payers)))["id"] for n in range(5)
    ]
    statuses: Counter[tuple[str, int]] = Counter()

    async def send(what: str, method: str, path: str, **json: Any) -> httpx.Response:
        response = await client.request(method, path, headers=shop.editor, json=json or None)
        statuses[what, response.status_code] += 1
        return response

    async def rename(payer: int) -> None:
        for number in range(12):
            name = f"C {payer} {number}"
            await send("rename", "PATCH", f"/v1/payers/{payer}", name=name)

    async def edit(purchase_id: int) -> None:
        for number in range(12):
            change = {"note": f"P {number}", "payer_id": random.choice(payers)}
            await send("edit", "PATCH", f"/v1/purchases/{purchase_id}", **change)

    async def put_back() -> None:
        for purchase_id in random.sample(purchases, len(purchases)):
            change = {"payer_id": None, "status": random.choice(["open", "paid", "sent"])}
            await send("put back", "PATCH", f"/v1/purchases/{purchase_id}", **change)

    async def come_and_go() -> None:
        for number in range(8):
            body = purchase(note=f"Short {number}", payer_id=random.choice(payers))
            made = await send("create", "POST", "/v1/purchases", **body)
            await send("delete", "DELETE", f"/v1/purchases/{made.json()['id']}")

    await asyncio.gather(
        *map(rename, payers),
        *map(edit, purchases),
        *(put_back() for _ in range(3)),
        *(come_and_go() for _ in range(2)),
    )

    assert {status for _, status in statuses} == {200, 201, 204}, statuses


SERVICES = ("app", "chassis/files", "chassis/jobs", "tests/purchases")


def functions_that_commit() -> Iterator[tuple[str, ast.AsyncFunctionDef, bool]]:
    for path in sorted(path for room in SERVICES for path in (ROOT / room).rglob("*.py")):
        tree = ast.parse(path.read_text())
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)]
        callers: dict[str, list[ast.AsyncFunctionDef]] = {}
        for function in functions:
            for called in calls(function):
                callers.setdefault(called, []).append(function)
        pending = callers.pop("commit", [])
        while pending:
            function = pending.pop()
            is_marked = "retry_on_deadlock" in {ast.unparse(d) for d in function.decorator_list}
            above = callers.pop(function.name, []) if not is_marked else []
            if is_marked or not above:
                yield path.name, function, is_marked
            pending += above


def calls(function: ast.AsyncFunctionDef) -> set[str]:
    nodes = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return attributes | {node.id for node in nodes if isinstance(node, ast.Name)}


def test_every_transaction_of_a_service_is_marked():
    found = list(functions_that_commit())

    assert len(found) > 15
    assert [f"{file}: {f.name}" for file, f, is_marked in found if not is_marked] == []
