import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest
from sqlalchemy import text

from app.main import create_app
from app.resources import Resources
from app.settings import RequestSettings, Settings
from tests.catalogue import Catalogue
from tests.conftest import client_of


def is_problem(answer: httpx2.Response, status: int) -> bool:
    body = answer.json()
    return bool(
        answer.status_code == body["status"] == status
        and answer.headers["Content-Type"] == "application/problem+json"
        and answer.headers["X-Request-ID"] == body["request_id"]
        and body["instance"] == answer.request.url.path
        and body["title"]
        and body["detail"]
        and body["type"] == "about:blank"
    )


async def test_every_refusal_is_a_problem(client: httpx2.AsyncClient, catalogue: Catalogue):
    book = await catalogue.add_book(isbn13="9780141439471")
    path = f"/v1/books/{book['id']}"
    author_ids = [author["id"] for author in book["authors"]]
    editor = catalogue.editor
    twin = {"title": "Twin", "isbn13": "9780141439471", "author_ids": author_ids}

    assert is_problem(await client.get("/nowhere"), 404)
    assert is_problem(await client.get("/v1/books/987654321"), 404)
    assert is_problem(await client.get("/v1/authors/987654321"), 404)
    assert is_problem(await client.put(path), 405)
    assert is_problem(await client.post("/v1/books", json=twin), 401)
    assert is_problem(await client.post("/v1/books", json=twin, headers=editor), 409)
    assert is_problem(await client.patch(path, json={}, headers=editor | {"If-Match": '"7"'}), 412)
    assert is_problem(await client.post("/v1/books", content=b"{", headers=editor), 422)
    assert is_problem(await client.get("/v1/books/seven"), 422)
    assert is_problem(await client.get("/v1/books/0"), 422)
    assert is_problem(await client.get(f"/v1/books/{2**63}"), 422)


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/v1/books?pagesize=5", "after, author_id, language, limit, q, sort, year_from, year_to"),
        ("/v1/authors?q=a", "after, limit, sort"),
        ("/v1/rankings/books?sort=id", "language, limit"),
        ("/v1/books/1?book_id=2", "none"),
        ("/health?deep=1", "none"),
    ],
)
async def test_unknown_query_parameter_is_refused(
    client: httpx2.AsyncClient, path: str, known: str
):
    answer = await client.get(path)

    assert is_problem(answer, 422)
    assert answer.json()["errors"] == [
        {
            "loc": ["query", path.split("?")[1].split("=")[0]],
            "msg": f"Unknown parameter; known are: {known}",
            "type": "extra_forbidden",
        }
    ]


async def test_request_id_is_kept_when_it_is_sane(client: httpx2.AsyncClient):
    sane = await client.get("/health", headers={"X-Request-ID": "abc-123"})
    insane = await client.get("/health", headers={"X-Request-ID": "a b\x7f"})

    assert sane.headers["X-Request-ID"] == "abc-123"
    assert len(insane.headers["X-Request-ID"]) == 32


async def test_large_body_is_refused_with_and_without_a_length(
    client: httpx2.AsyncClient, catalogue: Catalogue
):
    body = b'{"title": "' + b"x" * 2_000_000 + b'"}'

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536]

    for content in (body, chunks()):
        answer = await client.post(
            "/v1/books",
            content=content,
            headers=catalogue.editor | {"Content-Type": "application/json"},
        )

        assert is_problem(answer, 413)
        assert "1048576 bytes" in answer.json()["detail"]


async def test_what_nobody_caught_is_a_500_that_tells_no_secrets(
    settings: Settings, resources: Resources
):
    app = create_app(settings)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("a secret")

    async with client_of(app, resources) as client:
        answer = await client.get("/broken")

    assert is_problem(answer, 500)
    assert "secret" not in answer.text


async def test_request_over_its_time_is_a_504_and_lets_go_of_its_connection(
    settings: Settings, resources: Resources
):
    app = create_app(settings.model_copy(update={"request": RequestSettings(timeout=0.05)}))

    @app.get("/slow")
    async def slow() -> None:
        async with resources["sessions"].read() as session:
            await session.connection()
            await asyncio.Event().wait()

    async with client_of(app, resources) as client:
        answer = await client.get("/slow")

    assert is_problem(answer, 504)
    assert answer.headers["Retry-After"] == "1"
    assert resources["sessions"].read.kw["bind"].pool.checkedout() == 0


async def test_wrong_statement_is_a_bug_and_no_outage(settings: Settings, resources: Resources):
    app = create_app(settings)

    @app.get("/wrong")
    async def wrong() -> None:
        async with resources["sessions"].read() as session:
            await session.execute(text("SELECT misspelt FROM books"))

    async with client_of(app, resources) as client:
        answer = await client.get("/wrong")

    assert is_problem(answer, 500)
