"""Transactions that the database undoes to end a deadlock are run again; no client sees them."""

import ast
import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

import app.services
from app.models import Author
from app.resources import Resources
from app.schemas.user import Role
from app.services.transactions import REPEATS, transaction
from tests.accounts import add_account
from tests.catalogue import Catalogue
from tests.databases import mariadb_only


def deadlocks(resources: Resources) -> float:
    metrics = resources["metrics"].registry
    return metrics.get_sample_value("database_deadlocks_total") or 0


@mariadb_only
async def test_two_that_lock_rows_in_opposite_order_both_succeed(
    resources: Resources, catalogue: Catalogue
):
    """The service with sessions of its own: here a function."""
    first, second = [await catalogue.add_author(name) for name in ("A", "B")]
    meet = asyncio.Barrier(2)
    runs = 0

    @transaction
    async def rename(ids: list[int]) -> None:
        nonlocal runs
        runs += 1
        async with resources["sessions"].write() as session:
            for id in ids:
                renamed = Author.name + str(ids[0])
                await session.execute(update(Author).where(Author.id == id).values(name=renamed))
                if id == ids[0] and runs <= 2:
                    await meet.wait()
            await session.commit()

    await asyncio.gather(rename([first, second]), rename([second, first]))

    assert runs == 3
    assert deadlocks(resources) == 1
    names = {author["name"][0]: author["name"] for author in await catalogue.walk("/v1/authors")}
    assert {len(name) for name in names.values()} == {1 + len(str(first)) + len(str(second))}


@mariadb_only
async def test_a_change_that_the_database_undoes_is_made_in_the_same_request(
    resources: Resources, catalogue: Catalogue
):
    """A service with the session of a dependency."""
    book = await catalogue.add_book()
    path, author = f"/v1/books/{book['id']}", book["authors"][0]["id"]

    async with resources["sessions"].write() as other:
        await hold(other, author, catalogue)
        patch = asyncio.create_task(catalogue.change(path, title="Changed"))
        await until_somebody_waits(resources)
        await other.execute(text(f"UPDATE books SET version = 7 WHERE id = {book['id']}"))
        await other.commit()
    answer = await patch

    assert answer.status_code == 200, answer.text
    assert (answer.json()["title"], answer.json()["version"]) == ("Changed", 8)
    assert deadlocks(resources) == 1


@mariadb_only
async def test_an_idempotency_key_is_taken_again_with_what_was_undone(
    client: httpx2.AsyncClient, resources: Resources, catalogue: Catalogue
):
    author = await catalogue.add_author()
    headers = catalogue.editor | {"Idempotency-Key": "key"}
    body = {"title": "Frankenstein", "author_ids": [author]}

    async with resources["sessions"].write() as other:
        await hold(other, author, catalogue)
        post = asyncio.create_task(client.post("/v1/books", json=body, headers=headers))
        await until_somebody_waits(resources)
        await other.execute(text("SELECT * FROM kept_answers FOR UPDATE"))
        await other.commit()
    answers = [await post, await client.post("/v1/books", json=body, headers=headers)]

    assert [answer.status_code for answer in answers] == [201, 201]
    assert "Idempotency-Replayed" in answers[1].headers
    assert deadlocks(resources) == 1
    assert len(await catalogue.walk("/v1/books")) == 1


async def hold(session: AsyncSession, author: int, catalogue: Catalogue) -> None:
    """Lock the author, and change more than others: the database undoes the one with less."""
    extra = [await catalogue.add_author(f"Another {number}") for number in range(9)]
    changed = update(Author).where(Author.id.in_([author, *extra])).values(version=2)
    await session.execute(changed)


async def until_somebody_waits(resources: Resources) -> None:
    """Until a transaction waits for a lock."""
    wanted = "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
    async with asyncio.timeout(5), resources["sessions"].current() as session:
        while not await session.scalar(text(wanted)):
            await asyncio.sleep(0.15)  # the server looks no more often than each 0.1 s


async def test_what_the_database_goes_on_undoing_is_given_up():
    runs = 0

    @transaction
    async def never() -> None:
        nonlocal runs
        runs += 1
        raise OperationalError("", {}, RuntimeError(1213, "Deadlock"))

    with pytest.raises(OperationalError):
        await never()

    assert runs == REPEATS + 1


async def test_a_lock_that_is_waited_for_too_long_is_not_waited_for_again():
    runs = 0

    @transaction
    async def wait() -> None:
        nonlocal runs
        runs += 1
        raise OperationalError("", {}, RuntimeError(1205, "Lock wait timeout exceeded"))

    with pytest.raises(OperationalError):
        await wait()

    assert runs == 1


@mariadb_only
async def test_changes_at_the_same_rows_from_all_sides_fail_nobody(
    client: httpx2.AsyncClient, resources: Resources, catalogue: Catalogue
):
    """Authors renamed, their books edited, reviewed and deleted, at once: no 5xx, no 409.

    By no more clients than there are connections to write with: none of them waits for one. SQLite
    has one writer at a time, so there it would only show how fast the machine is.
    """
    authors = [await catalogue.add_author(f"Author {number}") for number in range(4)]
    books = [
        (await catalogue.add_book(f"Book {n}", author_ids=random.sample(authors, 3)))["id"]
        for n in range(5)
    ]
    tokens = []
    for _ in range(3):
        async with resources["sessions"].write() as session:
            tokens.append(await add_account(session, Role.READER, resources["access_tokens"]))
    statuses: Counter[tuple[str, int]] = Counter()

    async def send(what: str, method: str, path: str, token: str | None = None, **json: Any) -> int:
        headers = {"Authorization": f"Bearer {token or catalogue.token}"}
        answer = await client.request(method, path, headers=headers, json=json or None)
        statuses[what, answer.status_code] += 1
        return answer.status_code

    async def rename(author: int) -> None:
        for number in range(12):
            await send("rename", "PATCH", f"/v1/authors/{author}", name=f"A {author} {number}")

    async def edit(book: int) -> None:
        for number in range(12):
            ids = random.sample(authors, 3)
            await send("edit", "PATCH", f"/v1/books/{book}", title=f"B {number}", author_ids=ids)

    async def review(token: str) -> None:
        for book in random.sample(books, len(books)):
            await send("review", "POST", f"/v1/books/{book}/reviews", token, rating=3, text="x")

    async def come_and_go() -> None:
        for number in range(8):
            made = await catalogue.add_book(f"Short {number}", author_ids=random.sample(authors, 2))
            await send("delete", "DELETE", f"/v1/books/{made['id']}")

    await asyncio.gather(
        *map(rename, authors), *map(edit, books), *map(review, tokens), come_and_go(), come_and_go()
    )

    assert {status for _, status in statuses} == {200, 201, 204}, statuses


def functions_that_commit() -> Iterator[tuple[str, ast.AsyncFunctionDef, bool]]:
    for path in sorted(Path(app.services.__path__[0]).glob("*.py")):
        tree = ast.parse(path.read_text())
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)]
        callers: dict[str, list[ast.AsyncFunctionDef]] = {}
        for function in functions:
            for called in calls(function):
                callers.setdefault(called, []).append(function)
        pending = callers.pop("commit", [])
        while pending:
            function = pending.pop()
            is_marked = "transaction" in {ast.unparse(d) for d in function.decorator_list}
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

    assert len(found) > 20
    assert [f"{file}: {f.name}" for file, f, is_marked in found if not is_marked] == []
