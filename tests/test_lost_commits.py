"""A client that obeys makes nothing twice, wherever the connection to the database breaks."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import httpx2
import pytest
from sqlalchemy import make_url

from app.main import create_app
from app.resources import open_resources
from app.settings import DatabaseSettings, RedisSettings, RequestSettings, Settings
from tests.catalogue import Catalogue
from tests.conftest import client_of, execute
from tests.databases import mariadb_only
from tests.proxy import Fate, Proxy, proxied

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
) -> AsyncIterator[httpx2.AsyncClient]:
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


async def obey(client: httpx2.AsyncClient, *, json: dict[str, Any], **options: Any) -> int:
    """Send it again as often as `Retry-After` says so."""
    while True:
        answer = await client.post("/v1/books", json=json, **options)
        if "Retry-After" not in answer.headers:
            return answer.status_code


async def titles(catalogue: Catalogue) -> Counter[str]:
    return Counter(book["title"] for book in await catalogue.walk("/v1/books", limit=100))


@pytest.mark.parametrize("with_key", [True, False])
async def test_a_hundred_posts_of_a_client_that_obeys_make_nothing_twice(
    breaking: httpx2.AsyncClient, proxy: Proxy, catalogue: Catalogue, with_key: bool
):
    """Of the commits a third gets no reply, carried out or not; some inserts break as well."""
    author, commits, inserts = await catalogue.add_author(), count(), count()

    def fate(statement: bytes) -> Fate:
        if statement == COMMIT:
            return ("lost", "passed", "dropped", "passed", "passed", "killed")[next(commits) % 6]
        is_insert = statement.startswith(b"INSERT INTO books")
        return "dropped" if is_insert and next(inserts) % 7 == 0 else "passed"

    async def post(number: int) -> int:
        headers = catalogue.editor | ({"Idempotency-Key": f"{number}"} if with_key else {})
        json = {"title": f"Title {number}", "author_ids": [author]}
        return await obey(breaking, json=json, headers=headers)

    proxy.fate = fate
    statuses: list[int] = []
    for start in range(0, 100, 10):
        statuses += await asyncio.gather(*map(post, range(start, start + 10)))
    made = await titles(catalogue)

    assert max(made.values()) == 1
    if with_key:
        assert Counter(statuses) == {201: 100}
        assert len(made) == 100
    else:
        assert statuses.count(503) > 20
        assert statuses.count(201) + statuses.count(503) == 100
        assert len(made) >= statuses.count(201)


@pytest.mark.parametrize("fate", ["lost", "dropped", "held", "killed"])
@pytest.mark.parametrize("with_key", [True, False])
async def test_a_commit_without_a_reply_has_an_unknown_outcome(
    breaking: httpx2.AsyncClient, proxy: Proxy, catalogue: Catalogue, fate: Fate, with_key: bool
):
    headers = catalogue.editor | ({"Idempotency-Key": "key"} if with_key else {})
    json = {"name": "Mary Shelley"}
    proxy.fate = once(COMMIT, fate)

    answer = await breaking.post("/v1/authors", json=json, headers=headers)
    again = await breaking.post("/v1/authors", json=json, headers=headers)

    problem = answer.json()
    assert answer.status_code == (504 if fate == "held" else 503)
    assert (problem["type"], problem["title"]) == (UNKNOWN, "Outcome unknown")
    assert "Idempotency-Key" in problem["detail"]
    assert answer.headers.get("Retry-After") == ("1" if with_key else None)
    was_made = fate in ("lost", "held")
    assert again.status_code == (201 if with_key or not was_made else 409)
    assert ("Idempotency-Replayed" in again.headers) == (with_key and was_made)


@pytest.mark.parametrize(
    ("method", "retry"), [("DELETE", "1"), ("PATCH", None)], ids=["DELETE", "PATCH"]
)
async def test_what_is_idempotent_may_be_sent_again_without_a_key(
    breaking: httpx2.AsyncClient, proxy: Proxy, catalogue: Catalogue, method: str, retry: str | None
):
    """A key that a route does not know makes nothing safe."""
    path = f"/v1/books/{(await catalogue.add_book())['id']}"
    options: dict[str, Any] = {"json": {"title": "Another"}} if method == "PATCH" else {}
    headers = catalogue.editor | {"Idempotency-Key": "key"}
    proxy.fate = once(COMMIT, "lost")

    answer = await breaking.request(method, path, headers=headers, **options)

    assert answer.json()["type"] == UNKNOWN
    assert answer.headers.get("Retry-After") == retry


async def test_what_fails_before_the_commit_is_not_done_and_says_so(
    breaking: httpx2.AsyncClient, proxy: Proxy, catalogue: Catalogue
):
    proxy.fate = once(b"INSERT INTO authors", "dropped")

    answer = await breaking.post("/v1/authors", json={"name": "Mary"}, headers=catalogue.editor)
    again = await breaking.post("/v1/authors", json={"name": "Mary"}, headers=catalogue.editor)

    assert (answer.status_code, answer.json()["type"]) == (503, "about:blank")
    assert answer.headers["Retry-After"] == "1"
    assert again.status_code == 201


without_redis = pytest.mark.parametrize(
    "breaking", [{"redis": RedisSettings(url="unix:///nowhere.sock")}], indirect=True
)


@without_redis
async def test_what_the_cache_commits_says_nothing_of_the_change(
    breaking: httpx2.AsyncClient, proxy: Proxy, catalogue: Catalogue
):
    """The change is lost before its commit; then the cache, without Redis, commits a new epoch."""
    path = f"/v1/authors/{await catalogue.add_author()}"
    proxy.fate = once(b"DELETE FROM authors", "dropped")

    answer = await breaking.delete(path, headers=catalogue.editor)

    assert (answer.status_code, answer.json()["type"]) == (503, "about:blank")
    assert "is made" not in answer.json()["detail"]


@without_redis
async def test_an_error_after_the_commit_says_that_the_change_is_made(
    breaking: httpx2.AsyncClient, proxy: Proxy, catalogue: Catalogue
):
    proxy.fate = once(b"UPDATE cache_epoch", "held")

    answer = await breaking.post("/v1/authors", json={"name": "Mary"}, headers=catalogue.editor)

    assert answer.status_code == 504
    assert answer.json()["detail"].endswith("the change itself is made")
    assert "Retry-After" not in answer.headers
    assert len(await catalogue.walk("/v1/authors")) == 1
