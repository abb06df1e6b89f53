"""A client that obeys makes nothing twice, wherever the connection to the database breaks."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import make_url

from app.settings import Settings
from chassis.database.settings import DatabaseSettings
from chassis.limits.settings import RequestSettings
from chassis.redis.settings import RedisSettings
from chassis.resources import open_resources
from tests.conftest import client_of, execute
from tests.databases import mariadb_only
from tests.proxy import Fate, Proxy, proxied
from tests.service import create_app
from tests.shop import Shop, purchase

pytestmark = mariadb_only

COMMIT = b"COMMIT"
UNKNOWN = "urn:problem-type:outcome-unknown"


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    async def kill(connection: int) -> None:
        await execute(make_url(database_url), f"KILL {connection}")

    async with proxied(database_url, kill) as proxy:
        yield proxy


@pytest.fixture
async def breaking(
    settings: Settings, proxy: Proxy, request: pytest.FixtureRequest
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service that reaches its database through the proxy."""
    changes = {
        "database": DatabaseSettings(url=proxy.url),
        "request": RequestSettings(timeout=1),
        **getattr(request, "param", {}),
    }
    settings = settings.model_copy(update=changes)
    async with open_resources(settings) as resources:
        async with client_of(create_app(settings), resources) as client:
            yield client
        proxy.cut()


def once(word: bytes, fate: Fate) -> Any:
    """The next statement that begins so has this fate."""
    left = [fate]
    return lambda text: left.pop() if left and text.startswith(word) else "passed"


async def obey(client: httpx.AsyncClient, *, json: dict[str, Any], **options: Any) -> int:
    """Send it again as often as `Retry-After` says so."""
    while True:
        response = await client.post("/v1/purchases", json=json, **options)
        if "Retry-After" not in response.headers:
            return response.status_code


async def notes(shop: Shop) -> Counter[str]:
    return Counter(each["note"] for each in await shop.walk("/v1/purchases", limit=100))


@pytest.mark.parametrize("with_key", [True, False])
async def test_a_hundred_posts_of_a_client_that_obeys_make_nothing_twice(
    breaking: httpx.AsyncClient, proxy: Proxy, shop: Shop, with_key: bool
):
    """Of the commits a third gets no reply, carried out or not; some inserts break as well."""
    commits, inserts = count(), count()

    def fate(statement: bytes) -> Fate:
        if statement == COMMIT:
            return ("lost", "passed", "dropped", "passed", "passed", "killed")[next(commits) % 6]
        is_insert = statement.startswith(b"INSERT INTO purchases")
        return "dropped" if is_insert and next(inserts) % 7 == 0 else "passed"

    async def post(number: int) -> int:
        headers = shop.editor | ({"Idempotency-Key": f"{number}"} if with_key else {})
        json = purchase(note=f"Note {number}")
        return await obey(breaking, json=json, headers=headers)

    proxy.fate = fate
    statuses: list[int] = []
    for start in range(0, 100, 10):
        statuses += await asyncio.gather(*map(post, range(start, start + 10)))
    made = await notes(shop)

    assert max(made.values()) == 1
    if with_key:
        assert Counter(statuses) == {201: 100}
        assert len(made) == 100
    else:
        assert statuses.count(503) > 20
        assert set(statuses) <= {201, 503, 504}  # 504: the machine was busy for a second
        assert len(made) >= statuses.count(201)


@pytest.mark.parametrize("fate", ["lost", "dropped", "held", "killed"])
@pytest.mark.parametrize("with_key", [True, False])
async def test_a_commit_without_a_reply_has_an_unknown_outcome(
    breaking: httpx.AsyncClient, proxy: Proxy, shop: Shop, fate: Fate, with_key: bool
):
    headers = shop.editor | ({"Idempotency-Key": "key"} if with_key else {})
    json = {"name": "Mary Shelley"}
    proxy.fate = once(COMMIT, fate)

    response = await breaking.post("/v1/payers", json=json, headers=headers)
    for _ in range(10):
        again = await breaking.post("/v1/payers", json=json, headers=headers)
        if again.status_code != 504:  # the machine was busy for a second
            break

    problem = response.json()
    assert response.status_code == (504 if fate == "held" else 503)
    assert (problem["type"], problem["title"]) == (UNKNOWN, "Outcome unknown")
    assert "Idempotency-Key" in problem["detail"]
    assert response.headers.get("Retry-After") == ("1" if with_key else None)
    was_made = fate in ("lost", "held")
    assert again.status_code == (201 if with_key or not was_made else 409)
    assert ("Idempotency-Replayed" in again.headers) == (with_key and was_made)


@pytest.mark.parametrize(
    ("method", "retry"), [("DELETE", "1"), ("PATCH", None)], ids=["DELETE", "PATCH"]
)
async def test_what_is_idempotent_may_be_sent_again_without_a_key(
    breaking: httpx.AsyncClient, proxy: Proxy, shop: Shop, method: str, retry: str | None
):
    """A key that a route does not know makes nothing safe."""
    path = f"/v1/purchases/{(await shop.add_purchase())['id']}"
    options: dict[str, Any] = {"json": {"note": "Another"}} if method == "PATCH" else {}
    headers = shop.editor | {"Idempotency-Key": "key"}
    proxy.fate = once(COMMIT, "lost")

    response = await breaking.request(method, path, headers=headers, **options)

    assert response.json()["type"] == UNKNOWN
    assert response.headers.get("Retry-After") == retry


async def test_what_fails_before_the_commit_is_not_done_and_says_so(
    breaking: httpx.AsyncClient, proxy: Proxy, shop: Shop
):
    proxy.fate = once(b"INSERT INTO payers", "dropped")

    response = await breaking.post("/v1/payers", json={"name": "Mary"}, headers=shop.editor)
    again = await breaking.post("/v1/payers", json={"name": "Mary"}, headers=shop.editor)

    assert (response.status_code, response.json()["type"]) == (503, "about:blank")
    assert response.headers["Retry-After"] == "1"
    assert again.status_code == 201


without_redis = pytest.mark.parametrize(
    "breaking", [{"redis": RedisSettings(url="unix:///nowhere.sock")}], indirect=True
)


@without_redis
async def test_what_the_cache_commits_says_nothing_of_the_change(
    breaking: httpx.AsyncClient, proxy: Proxy, shop: Shop
):
    """The change is lost before its commit; then the cache, without Redis, commits a new epoch."""
    path = f"/v1/payers/{await shop.add_payer()}"
    proxy.fate = once(b"DELETE FROM payers", "dropped")

    response = await breaking.delete(path, headers=shop.editor)

    assert (response.status_code, response.json()["type"]) == (503, "about:blank")
    assert "was made" not in response.json()["detail"]


@without_redis
async def test_an_error_after_the_commit_says_that_the_change_is_made(
    breaking: httpx.AsyncClient, proxy: Proxy, shop: Shop
):
    proxy.fate = once(b"UPDATE cache_epoch", "held")

    response = await breaking.post("/v1/payers", json={"name": "Mary"}, headers=shop.editor)

    assert response.status_code == 504
    assert response.json()["detail"].endswith("the change itself was made")
    assert "Retry-After" not in response.headers
    assert len(await shop.walk("/v1/payers")) == 1
