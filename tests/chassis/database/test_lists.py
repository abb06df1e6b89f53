"""Lists while rows change: none is shown twice, and none that is older than a finished write."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx2 as httpx
import pytest
from sqlalchemy import RowMapping, insert, text

from chassis.cache.metrics import CacheMetrics
from chassis.clock import now
from chassis.resources import Resources
from tests.databases import mariadb_only
from tests.purchases.model import Purchase
from tests.purchases.service import SORTS
from tests.queries import max_queries, recorded
from tests.shop import Shop, purchase

LIST = "/v1/purchases"
WRITING = ("INSERT", "UPDATE", "DELETE")


async def add_many(resources: Resources, count: int) -> None:
    """Values that repeat, so that lists need their second sort column."""
    rows = [
        {
            "number": uuid4(),
            "status": ("open", "paid", "sent")[n % 3],
            "total": n % 1000,
            "weight": n % 1000 / 7,
            "gift": n % 1000 == 0,
            "placed_at": now(),
            "due": None,
            "note": f"{n % 1000:05}",
        }
        for n in range(count)
    ]
    async with resources["sessions"].write.begin() as session:
        await session.execute(insert(Purchase).execution_options(render_nulls=True), rows)


@pytest.mark.parametrize("sort", ["id", "note", "-total", "number"])
async def test_walk_is_exact_while_others_insert_and_delete(
    shop: Shop, resources: Resources, sort: str
):
    await add_many(resources, 200)
    # By what is never given twice, as an id may be once its row is deleted.
    lasting = {each["number"] for each in await shop.walk(LIST, limit=100)}
    walking = True

    async def disturb() -> None:
        while walking:
            made = await shop.add_purchase("00050")
            await shop.client.delete(f"{LIST}/{made['id']}", headers=shop.editor)

    disturbing = asyncio.create_task(disturb())
    walked = [each["number"] for each in await shop.walk(LIST, sort=sort, limit=10)]
    walking = False
    await disturbing

    assert len(walked) == len(set(walked))
    assert lasting <= set(walked)


async def test_cursor_leads_on_when_its_row_is_deleted(client: httpx.AsyncClient, shop: Shop):
    made = [await shop.add_purchase(f"{n}") for n in range(3)]
    query: dict[str, Any] = {"limit": 1, "sort": "note"}
    first = (await client.get(LIST, params=query)).json()

    await client.delete(f"{LIST}/{made[0]['id']}", headers=shop.editor)
    second = await client.get(LIST, params=query | {"after": first["next"]})

    assert second.json()["items"] == [made[1]]


async def test_cursor_of_another_sort_is_refused(client: httpx.AsyncClient, resources: Resources):
    await add_many(resources, 21)
    cursor = (await client.get(LIST, params={"sort": "note"})).json()["next"]

    response = await client.get(LIST, params={"sort": "id", "after": cursor})

    assert response.status_code == 422
    assert "belongs to sort=note" in response.json()["detail"]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=many", "sort=title", "payer_id=0", "note="]
)
async def test_invalid_query_is_refused(client: httpx.AsyncClient, query: str):
    response = await client.get(f"{LIST}?{query}")

    assert response.status_code == 422
    assert response.json()["errors"][0]["loc"] == ["query", query.split("=")[0]]


async def test_page_of_100_is_one_query(client: httpx.AsyncClient, resources: Resources):
    await add_many(resources, 101)
    with max_queries(resources["sessions"], 1):
        page = await client.get(LIST, params={"limit": 100})

    assert len(page.json()["items"]) == 100


@mariadb_only
async def test_lists_are_found_by_an_index(client: httpx.AsyncClient, resources: Resources):
    """ANALYZE is EXPLAIN with what was really read: never a whole table, nor a whole index."""
    sessions = resources["sessions"]
    await add_many(resources, 6000)
    async with sessions.write() as session:
        await session.execute(text("ANALYZE TABLE purchases"))
    paths = [f"{LIST}?sort={sort}" for sort in SORTS]

    scans = []
    for path in paths:
        with recorded(sessions) as queries:
            page = await client.get(path)
            await client.get(f"{path}&after={page.json()['next']}")
        assert len(queries) == 2
        async with sessions.read() as session:
            connection = await session.connection()
            for query in queries:
                plan = await connection.exec_driver_sql(
                    f"ANALYZE {query.statement}", query.parameters
                )
                scans += [(path, step) for step in plan.mappings() if is_scan(step)]

    assert scans == []


def is_scan(step: RowMapping) -> bool:
    return step["type"] == "ALL" or float(step["r_rows"] or 0) > 1000


async def test_change_that_changes_nothing_writes_nothing_and_keeps_the_etag(
    client: httpx.AsyncClient, shop: Shop, resources: Resources
):
    path = f"{LIST}/{(await shop.add_purchase('Same'))['id']}"
    before = await shop.change(path, note="Same")
    renewals = resources["metrics"].of(CacheMetrics).cache_invalidations["done"]._value.get

    count = renewals()
    with recorded(resources["sessions"]) as queries:
        tags = (before.headers["ETag"], '"old"')
        response, stale = [
            await client.patch(path, json={"note": "Same"}, headers=shop.editor | {"If-Match": tag})
            for tag in tags
        ]

    assert (response.status_code, response.content) == (200, before.content)
    assert response.headers["ETag"] == before.headers["ETag"]
    assert stale.status_code == 412
    assert queries
    assert [q.statement for q in queries if q.statement.startswith(WRITING)] == []
    assert renewals() == count


WRITES: dict[str, tuple[str, str, dict[str, Any], set[str]]] = {
    "unchanged": ("PATCH", "one", {"note": "One"}, set()),
    "changed": ("PATCH", "one", {"note": "Other"}, {"one", "all", "found"}),
    "new": ("POST", "all", purchase(), {"all", "found", "none yet"}),
    "deleted": ("DELETE", "one", {}, {"one", "all", "found"}),
    "payer": ("PATCH", "payer", {"name": "Other"}, {"payer", "payers"}),
}


@pytest.mark.parametrize("name", WRITES)
async def test_write_invalidates_what_it_changes_and_nothing_else(
    client: httpx.AsyncClient, shop: Shop, name: str
):
    one, other = await shop.add_purchase("One"), await shop.add_purchase("Two")
    urls = {
        "one": f"{LIST}/{one['id']}",
        "other": f"{LIST}/{other['id']}",
        "none yet": f"{LIST}/{other['id'] + 1}",
        "all": LIST,
        "found": f"{LIST}?note=One&sort=total",
        "payer": f"/v1/payers/{await shop.add_payer()}",
        "payers": "/v1/payers",
    }
    method, of, body, changed = WRITES[name]

    for url in urls.values():
        await client.get(url)
    written = await client.request(method, urls[of], headers=shop.editor, json=body or None)
    after = {name: await client.get(url) for name, url in urls.items()}
    current = [
        await client.get(url, headers={"Cache-Control": "no-cache"}) for url in urls.values()
    ]

    assert written.is_success, written.text
    assert {name for name in urls if after[name].headers["X-Cache"] != "HIT"} == changed
    for shown, fresh in zip(after.values(), current, strict=True):
        assert shown.status_code == fresh.status_code
        assert shown.headers.get("ETag") == fresh.headers.get("ETag")


async def test_no_list_is_older_than_a_write_that_has_returned(
    client: httpx.AsyncClient, shop: Shop
):
    """Each purchase goes from list to list, while others read all of them the whole time."""
    states = ["open", "paid", "sent"]
    payers = [await shop.add_payer(f"Payer {n}") for n in range(3)]
    lists = [LIST, f"{LIST}?sort=total"]
    lists += [f"{LIST}?status={state}" for state in states]
    lists += [f"{LIST}?payer_id={payer}" for payer in payers]
    hits = stale = 0
    moving = True

    async def read() -> None:
        nonlocal hits
        while moving:
            for path in lists:
                hits += (await client.get(path)).headers["X-Cache"] == "HIT"

    async def move(number: int) -> None:
        nonlocal stale
        made = await shop.add_purchase(payer_id=payers[0])
        for n in range(20):
            to = {"payer_id": payers[n % 3], "status": states[(n + number) % 3]}
            changed = (await shop.change(f"{LIST}/{made['id']}", **to)).json()
            for path in lists:
                shown = (await client.get(path)).json()["items"]
                expected = path in lists[:2] or path.endswith(
                    (f"payer_id={to['payer_id']}", f"status={to['status']}")
                )
                stale += (changed in shown) is not expected

    async with asyncio.TaskGroup() as readers:
        for _ in range(2):
            readers.create_task(read())
        async with asyncio.TaskGroup() as writers:
            for number in range(2):
                writers.create_task(move(number))
        moving = False

    assert stale == 0
    assert hits > 0  # how many depends on what else the machine does


async def test_what_others_refer_to_cannot_be_deleted(client: httpx.AsyncClient, shop: Shop):
    payer_id = await shop.add_payer()
    await shop.add_purchase(payer_id=payer_id)

    refused = await client.delete(f"/v1/payers/{payer_id}", headers=shop.editor)
    kept = await client.get(f"/v1/payers/{payer_id}")

    assert (refused.status_code, kept.status_code) == (409, 200)
