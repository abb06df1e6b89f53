import asyncio
from collections.abc import AsyncIterator

import httpx2 as httpx
import orjson
import pytest
from fastapi import HTTPException, Request
from sqlalchemy import text

from app.settings import Settings
from chassis.errors import Invalid
from chassis.http.body_limit import MAX_CONTAINERS, MAX_FORM, check_containers
from chassis.http.parameters import MAX_QUERY
from chassis.limits.settings import RequestSettings
from chassis.problems.validation_errors import Faults
from chassis.resources import Resources
from tests.conftest import client_of
from tests.process import wait_until
from tests.service import create_app
from tests.shop import Shop
from tests.shop import purchase as body_of


def is_problem(response: httpx.Response, status: int) -> bool:
    body = response.json()
    return bool(
        response.status_code == body["status"] == status
        and response.headers["Content-Type"] == "application/problem+json"
        and response.headers["X-Request-ID"] == body["request_id"]
        and body["instance"] == response.request.url.path
        and body["title"]
        and body["detail"]
        and body["type"] == "about:blank"
    )


async def test_every_refusal_is_a_problem(client: httpx.AsyncClient, shop: Shop):
    first = await shop.add_purchase()
    path = f"/v1/purchases/{first['id']}"
    editor = shop.editor
    twin = body_of(number=first["number"])

    assert is_problem(await client.get("/nowhere"), 404)
    assert is_problem(await client.get("/v1/purchases/987654321"), 404)
    assert is_problem(await client.get("/v1/payers/987654321"), 404)
    assert is_problem(await client.put(path), 405)
    assert is_problem(await client.post("/v1/purchases", json=twin), 401)
    assert is_problem(await client.post("/v1/purchases", json=twin, headers=editor), 409)
    assert is_problem(await client.patch(path, json={}, headers=editor | {"If-Match": '"7"'}), 412)
    assert is_problem(await client.post("/v1/purchases", content=b"{", headers=editor), 422)
    assert is_problem(await client.get("/v1/purchases/seven"), 422)
    assert is_problem(await client.get("/v1/purchases/0"), 422)
    assert is_problem(await client.get(f"/v1/purchases/{2**63}"), 422)


@pytest.mark.parametrize(
    ("path", "known"),
    [
        (
            "/v1/purchases?pagesize=5",
            "after, limit, note, payer_id, placed_from, sort, status, total_from",
        ),
        ("/v1/payers?q=a", "after, limit, sort"),
        ("/v1/purchases/totals?sort=id", "limit"),
        ("/v1/purchases/1?purchase_id=2", "none"),
    ],
)
async def test_unknown_query_parameter_is_refused(client: httpx.AsyncClient, path: str, known: str):
    response = await client.get(path)

    assert is_problem(response, 422)
    assert response.json()["errors"] == [
        {
            "loc": ["query", path.split("?")[1].split("=")[0]],
            "msg": f"Unknown parameter; known are: {known}",
            "type": "extra_forbidden",
        }
    ]


async def test_request_id_is_kept_when_it_is_sane(client: httpx.AsyncClient):
    sane = await client.get("/health", headers={"X-Request-ID": "abc-123"})
    insane = await client.get("/health", headers={"X-Request-ID": "a b\x7f"})

    assert sane.headers["X-Request-ID"] == "abc-123"
    assert len(insane.headers["X-Request-ID"]) == 32


async def test_large_body_is_refused_with_and_without_a_length(
    client: httpx.AsyncClient, shop: Shop
):
    body = b'{"note": "' + b"x" * 2_000_000 + b'"}'

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536]

    for content in (body, chunks()):
        response = await client.post(
            "/v1/purchases",
            content=content,
            headers=shop.editor | {"Content-Type": "application/json"},
        )

        assert is_problem(response, 413)
        assert "1048576 bytes" in response.json()["detail"]


async def test_what_nobody_caught_is_a_500_that_tells_no_secrets(
    settings: Settings, resources: Resources
):
    app = create_app(settings)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("a secret")

    async with client_of(app, resources) as client:
        response = await client.get("/broken")

    assert is_problem(response, 500)
    assert "secret" not in response.text


async def test_reference_that_another_request_broke_is_a_conflict(
    settings: Settings, resources: Resources
):
    """It is a request whose account, say, was deleted after it had been authenticated."""
    app = create_app(settings)
    statements = {
        "reference": "INSERT INTO login_networks VALUES (987654321, 'a', '2026-03-01 09:00:00')",
        "duplicate": "INSERT INTO cache_epoch (id, number) SELECT id, 1 FROM cache_epoch",
    }

    @app.post("/broken/{what}")
    async def broken(what: str) -> None:
        async with resources["sessions"].write() as session:
            await session.execute(text(statements[what]))

    async with client_of(app, resources) as client:
        reference = await client.post("/broken/reference")
        duplicate = await client.post("/broken/duplicate")

    assert is_problem(reference, 409)
    assert is_problem(duplicate, 500)


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
        response = await client.get("/slow")

    assert is_problem(response, 504)
    assert response.headers["Retry-After"] == "1"
    pool = resources["sessions"].read.kw["bind"].pool
    # The cache may ask for its epoch at the same time.
    await wait_until(lambda: pool.checkedout() == 0, "the connection")


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
            response = await client.post(f"/raise/{status}", json="A reason")
            caused = await client.post(f"/raise/{status}", content=b"{")
            data = await client.post(f"/raise/{status}", json={"code": [7, None]})
            odd = await client.post(f"/raise/{status}", content=b'"\\ud800"')
            bare = await client.post(f"/raise/{status}", json="")

            assert is_problem(response, status)
            assert response.json()["detail"] == "A reason"
            assert response.headers["WWW-Authenticate"] == "Basic"
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
        (b'{"note": ' + b"9" * 5000 + b"}", "application/json"),
        (b'{"note": "\xff"}', "application/json"),
        (b"a=b", "application/x-www-form-urlencoded"),
        (b"{}", "text/plain"),
        (b"", "application/json"),
    ],
)
async def test_body_that_cannot_be_read_is_invalid(
    client: httpx.AsyncClient, shop: Shop, content: bytes, kind: str
):
    headers = shop.editor | {"Content-Type": kind}
    response = await client.post("/v1/purchases", content=content, headers=headers)

    assert is_problem(response, 422)
    assert response.json()["errors"][0]["loc"][0] == "body"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
async def test_json_of_another_type_is_told_which_it_needs(
    client: httpx.AsyncClient, shop: Shop, kind: str | None
):
    """What `curl -d` sends is declared as a form."""
    headers = shop.editor | ({"Content-Type": kind} if kind else {})
    response = await client.post("/v1/payers", content=b'{"name": "A"}', headers=headers)

    assert is_problem(response, 422)
    fault = response.json()["errors"][0]
    assert (fault["loc"], "Content-Type: application/json" in fault["msg"]) == (["body"], True)


@pytest.mark.parametrize(
    "field", [("Content-Encoding", "gzip"), ("Content-Range", "bytes 0-12/99")], ids=lambda f: f[0]
)
async def test_body_that_is_encoded_or_a_part_is_not_taken_for_the_whole(
    client: httpx.AsyncClient, shop: Shop, field: tuple[str, str]
):
    name, value = field
    path = f"/v1/purchases/{(await shop.add_purchase())['id']}/receipt"
    headers = shop.editor | {name: value}
    pdf = headers | {"Content-Type": "application/pdf"}

    for refused in (
        await client.put(path, content=b"%PDF-", headers=pdf),
        await client.post("/v1/payers", json={"name": "A"}, headers=headers),
    ):
        assert is_problem(refused, 422)
        assert refused.json()["errors"][0]["loc"] == ["header", name]
    plain = shop.editor | {"Content-Encoding": "identity"}
    assert (await client.post("/v1/payers", json={"name": "A"}, headers=plain)).status_code == 201


@pytest.mark.parametrize(
    ("query", "name"),
    [("note=caf%E9", "note"), ("limit=1&note=%ff", "note"), ("limit=1&n%C3=1", "n\ufffd")],
)
async def test_query_that_is_not_utf8_is_refused(client: httpx.AsyncClient, query: str, name: str):
    """Else it would be another search: the byte would count as a sign between words."""
    response = await client.get(f"/v1/purchases?{query}")

    assert is_problem(response, 422)
    assert response.json()["errors"][0]["loc"] == ["query", name]
    assert (await client.get("/v1/purchases?note=caf%C3%A9")).status_code == 200


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
    client: httpx.AsyncClient, content: bytes, kind: str
):
    response = await client.post("/v1/tokens", content=content, headers={"Content-Type": kind})

    assert is_problem(response, 422)
    assert response.json()["errors"][0]["loc"][0] == "body"


UNKNOWN = b"{" + b",".join(b'"%06d":1' % n for n in range(80_000)) + b"}"


@pytest.mark.parametrize(
    "content",
    [
        UNKNOWN,
        b'{"' + b"x" * 900_000 + b'": 1}',
        b'{"' + b"\\u0000" * 150_000 + b'": 1}',
        b'{"\\ud800": 1, "note": "\\udfff"}',
        b'{"note": "a", "payer_id": [' + b"0," * 400_000 + b"0]}",
        b'{"note": "' + b"a" * 900_000 + b'", "payer_id": []}',
        b'{"note": ' + b"9" * 4000 + b', "status": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"note": "\\u0000", "payer_id": [1e999]}',
        b"[" + b"{}," * 300_000 + b"{}]",
        b'{"note": [' + (b"[" * 100 + b"]" * 100 + b",") * 2000 + b"1]}",
    ],
)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_faults_of_a_body_are_told_in_bounded_space(
    client: httpx.AsyncClient, shop: Shop, content: bytes, method: str
):
    path = (
        "/v1/purchases"
        if method == "POST"
        else f"/v1/purchases/{(await shop.add_purchase())['id']}"
    )
    headers = shop.editor | {"Content-Type": "application/json"}
    response = await client.request(method, path, content=content, headers=headers)

    assert is_problem(response, 422), response.text
    assert len(response.content) < 20_000
    assert 1 <= len(response.json()["errors"]) <= 20
    assert all(len(str(fault)) < 2000 for fault in response.json()["errors"])


async def test_forms_are_small_unless_a_handler_allows_more(client: httpx.AsyncClient):
    form = {"username": "a", "password": "b" * MAX_FORM, "grant_type": "password"}
    response = await client.post("/v1/tokens", data=form)

    assert is_problem(response, 413)


def test_brackets_in_text_are_no_lists():
    """However many they are, and whatever is escaped beside them."""
    text = b'[{\\\\\\"' * (MAX_CONTAINERS // 2 + 1)

    check_containers(b'{"text": "' + text + b'", "other": ["\\\\", "[["]}')
    with pytest.raises(Invalid):
        check_containers(b'{"text": "' + text + b'"}' + b"[" * MAX_CONTAINERS)


async def test_first_faults_and_their_number_are_told_once(client: httpx.AsyncClient):
    response = await client.get("/v1/purchases?" + "&".join(f"unknown{n}=1" for n in range(900)))

    problem = response.json()
    assert is_problem(response, 422)
    assert [fault["loc"] for fault in problem["errors"]] == [
        ["query", f"unknown{n}"] for n in range(20)
    ]
    assert problem["detail"].startswith("900 faults; the first: query.unknown0: ")
    assert "unknown1" not in problem["detail"]
    assert len(response.content) < 20_000


async def test_single_fault_is_the_detail(client: httpx.AsyncClient):
    problem = (await client.get("/v1/purchases?limit=0")).json()

    [fault] = problem["errors"]
    assert problem["detail"] == f"query.limit: {fault['msg']}"


@pytest.mark.parametrize(
    "query",
    ["a" * 60_000, "&" * 32_000, "a&" * 30_000, "%00" * 10_000, "limit=" + "9" * 30_000],
)
async def test_long_query_is_refused_in_bounded_space(client: httpx.AsyncClient, query: str):
    response = await client.get(f"/v1/purchases?{query}")

    assert len(response.content) < 20_000
    if len(query) > MAX_QUERY:
        assert response.json()["errors"][0]["loc"] == ["query"]


@pytest.mark.parametrize("path", ["/v1/purchases/" + "9" * 60_000, "/" + "%00" * 20_000])
async def test_long_path_is_not_told_back(client: httpx.AsyncClient, path: str):
    response = await client.get(path)

    assert response.status_code in (404, 422)
    assert len(response.content) < 20_000


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
            await session.execute(text("SELECT misspelt FROM purchases"))

    async with client_of(app, resources) as client:
        response = await client.get("/wrong")

    assert is_problem(response, 500)
