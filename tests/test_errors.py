import asyncio
from collections.abc import AsyncIterator

import httpx2
import orjson
import pytest
from fastapi import HTTPException, Request
from sqlalchemy import text

from app.body_limit import MAX_CONTAINERS, MAX_FORM, check_containers
from app.errors import Invalid
from app.faults import Faults
from app.main import create_app
from app.resources import Resources
from app.routing import MAX_QUERY
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


async def test_status_that_a_handler_raises_stays(settings: Settings, resources: Resources):
    app = create_app(settings)

    @app.post("/raise/{status}")
    async def raise_it(status: int, request: Request) -> None:
        try:
            detail = await request.json()
        except ValueError as error:
            raise HTTPException(status, "No JSON") from error
        raise HTTPException(status, detail or None, {"WWW-Authenticate": "Basic"})

    async with client_of(app, resources) as client:
        for status in (400, 401, 402, 409, 418, 422, 451, 500):
            answer = await client.post(f"/raise/{status}", json="A reason")
            caused = await client.post(f"/raise/{status}", content=b"{")
            data = await client.post(f"/raise/{status}", json={"code": [7, None]})
            odd = await client.post(f"/raise/{status}", content=b'"\\ud800"')
            bare = await client.post(f"/raise/{status}", json="")

            assert is_problem(answer, status)
            assert answer.json()["detail"] == "A reason"
            assert answer.headers["WWW-Authenticate"] == "Basic"
            assert is_problem(caused, status)
            assert is_problem(data, status)
            assert data.json()["data"] == {"code": [7, None]}
            assert is_problem(bare, status)
            assert is_problem(odd, status)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"{", "application/json"),
        (b"[" * 500_000, "application/json"),
        (b'{"title": ' + b"9" * 5000 + b"}", "application/json"),
        (b'{"title": "\xff"}', "application/json"),
        (b"a=b", "application/x-www-form-urlencoded"),
        (b"{}", "text/plain"),
        (b"", "application/json"),
    ],
)
async def test_body_that_cannot_be_read_is_invalid(
    client: httpx2.AsyncClient, catalogue: Catalogue, content: bytes, kind: str
):
    headers = catalogue.editor | {"Content-Type": kind}
    answer = await client.post("/v1/books", content=content, headers=headers)

    assert is_problem(answer, 422)
    assert answer.json()["errors"][0]["loc"][0] == "body"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"a=&" * 2000, "application/x-www-form-urlencoded"),
        (b"nothing", "multipart/form-data"),
        (b"--a\r\nnothing", "multipart/form-data; boundary=a"),
        (b"", "multipart/form-data; boundary=" + "a" * 1000),
    ],
)
async def test_form_that_cannot_be_read_is_invalid(
    client: httpx2.AsyncClient, content: bytes, kind: str
):
    answer = await client.post("/v1/tokens", content=content, headers={"Content-Type": kind})

    assert is_problem(answer, 422)
    assert answer.json()["errors"][0]["loc"][0] == "body"


UNKNOWN = b"{" + b",".join(b'"%06d":1' % n for n in range(80_000)) + b"}"


@pytest.mark.parametrize(
    "content",
    [
        UNKNOWN,
        b'{"' + b"x" * 900_000 + b'": 1}',
        b'{"' + b"\\u0000" * 150_000 + b'": 1}',
        b'{"\\ud800": 1, "title": "\\udfff"}',
        b'{"title": "a", "author_ids": [' + b"0," * 400_000 + b"0]}",
        b'{"title": "' + b"a" * 900_000 + b'", "author_ids": []}',
        b'{"title": ' + b"9" * 4000 + b', "language": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"title": "\\u0000", "author_ids": [1e999]}',
        b"[" + b"{}," * 300_000 + b"{}]",
        b'{"title": [' + (b"[" * 100 + b"]" * 100 + b",") * 2000 + b"1]}",
    ],
)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_faults_of_a_body_are_told_in_bounded_space(
    client: httpx2.AsyncClient, catalogue: Catalogue, content: bytes, method: str
):
    path = "/v1/books" if method == "POST" else f"/v1/books/{(await catalogue.add_book())['id']}"
    headers = catalogue.editor | {"Content-Type": "application/json"}
    answer = await client.request(method, path, content=content, headers=headers)

    assert is_problem(answer, 422), answer.text
    assert len(answer.content) < 20_000
    assert 1 <= len(answer.json()["errors"]) <= 20
    assert all(len(str(fault)) < 2000 for fault in answer.json()["errors"])


async def test_forms_are_small_unless_a_handler_allows_more(client: httpx2.AsyncClient):
    form = {"username": "a", "password": "b" * MAX_FORM, "grant_type": "password"}
    answer = await client.post("/v1/tokens", data=form)

    assert is_problem(answer, 413)


def test_brackets_in_text_are_no_lists():
    """However many they are, and whatever is escaped beside them."""
    text = b'[{\\\\\\"' * (MAX_CONTAINERS // 2 + 1)

    check_containers(b'{"text": "' + text + b'", "other": ["\\\\", "[["]}')
    with pytest.raises(Invalid):
        check_containers(b'{"text": "' + text + b'"}' + b"[" * MAX_CONTAINERS)


async def test_first_faults_and_their_number_are_told_once(client: httpx2.AsyncClient):
    answer = await client.get("/v1/books?" + "&".join(f"unknown{n}=1" for n in range(900)))

    problem = answer.json()
    assert is_problem(answer, 422)
    assert [fault["loc"] for fault in problem["errors"]] == [
        ["query", f"unknown{n}"] for n in range(20)
    ]
    assert problem["detail"].startswith("900 faults; the first: query.unknown0: ")
    assert "unknown1" not in problem["detail"]
    assert len(answer.content) < 20_000


async def test_single_fault_is_the_detail(client: httpx2.AsyncClient):
    problem = (await client.get("/v1/books?limit=0")).json()

    [fault] = problem["errors"]
    assert problem["detail"] == f"query.limit: {fault['msg']}"


@pytest.mark.parametrize(
    "query",
    ["a" * 60_000, "&" * 32_000, "a&" * 30_000, "%00" * 10_000, "limit=" + "9" * 30_000],
)
async def test_long_query_is_refused_in_bounded_space(client: httpx2.AsyncClient, query: str):
    answer = await client.get(f"/v1/books?{query}")

    assert len(answer.content) < 20_000
    if len(query) > MAX_QUERY:
        assert answer.json()["errors"][0]["loc"] == ["query"]


@pytest.mark.parametrize("path", ["/v1/books/" + "9" * 60_000, "/" + "%00" * 20_000])
async def test_long_path_is_not_told_back(client: httpx2.AsyncClient, path: str):
    answer = await client.get(path)

    assert answer.status_code in (404, 422)
    assert len(answer.content) < 20_000


def test_fault_that_two_dependencies_find_is_one():
    fault = {"loc": ("path", "id"), "msg": "Is no number", "type": "int"}
    other = fault | {"loc": ("path", "other")}

    assert Faults([fault, fault, other]).count == 2
    assert str(Faults([fault, fault])) == "path.id: Is no number"


def test_faults_fit_whatever_they_are():
    loc = ("body", "\0" * 500, *"a" * 500)
    faults = Faults([{"loc": (*loc, n), "msg": "\1" * 5000, "type": "a"} for n in range(99)])

    assert len(orjson.dumps(faults.shown)) <= 10_100
    assert faults.count == 99


async def test_wrong_statement_is_a_bug_and_no_outage(settings: Settings, resources: Resources):
    app = create_app(settings)

    @app.get("/wrong")
    async def wrong() -> None:
        async with resources["sessions"].read() as session:
            await session.execute(text("SELECT misspelt FROM books"))

    async with client_of(app, resources) as client:
        answer = await client.get("/wrong")

    assert is_problem(answer, 500)
