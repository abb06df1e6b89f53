"""`If-Match` and `If-None-Match` hold on whatever changes something that shows an ETag."""

from pathlib import Path
from string import Formatter
from typing import Any

import pytest

from app.settings import Settings
from chassis.files.settings import FilesSettings
from tests.preconditions import (
    Change,
    Known,
    check_any_and_others,
    check_changes_at_once,
    check_creation_of_file,
    check_current_tag,
    check_etag_of_change,
    check_odd_lists,
)
from tests.service import create_app
from tests.shop import Shop, purchase

SAFE = {"get", "head", "options"}
PDF = {"content": b"%PDF-1.7", "headers": {"Content-Type": "application/pdf"}}
NOWHERE = "/v1/purchases/987654321"
CHANGES: dict[str, Change] = {
    "purchase": ("/v1/purchases/{purchase_id}", "PATCH", {"json": {"note": "Second"}}),
    "deleted purchase": ("/v1/purchases/{purchase_id}", "DELETE", {}),
    "payer": ("/v1/payers/{payer_id}", "PATCH", {"json": {"name": "Second"}}),
    "deleted payer": ("/v1/payers/{payer_id}", "DELETE", {}),
    "account": ("/v1/users/me", "PATCH", {"json": {"name": "Second"}}),
    "receipt": ("/v1/purchases/{purchase_id}/receipt", "PUT", PDF),
    "new purchase": ("/v1/purchases", "POST", {"json": purchase()}),
    "new payer": ("/v1/payers", "POST", {"json": {"name": "New"}}),
}


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    settings.files = FilesSettings(url=f"file://{tmp_path}")
    settings.request.timeout = 60
    return settings


@pytest.fixture
async def known(shop: Shop) -> Known:
    known = Known(shop)
    known.ids |= {
        "purchase_id": (await shop.add_purchase())["id"],
        "other_id": (await shop.add_purchase("Other"))["id"],
        "payer_id": await shop.add_payer(),
    }
    path, method, request = CHANGES["receipt"]
    assert (await known.send(method, path, request)).status_code == 200
    return known


EXAMPLES: dict[str | None, Any] = {
    "boolean": False,
    "date": "2026-03-01",
    "date-time": "2026-03-01T09:30:00Z",
    "integer": 1,
    "number": 1,
    "uuid": "0e6a5b0c-8c1f-4e0f-9d0f-3a4c1b2d3e4f",
}


async def test_every_change_of_what_shows_an_etag_refuses_a_stale_one_and_says_so(
    known: Known, settings: Settings
):
    document = create_app(settings).openapi()
    tried = []
    for path, operations in document["paths"].items():
        ids = {name for _, name, _, _ in Formatter().parse(path) if name}
        if "get" not in operations or not ids <= known.ids.keys():
            continue
        if "ETag" not in (await known.get(path)).headers:
            continue
        for method in operations.keys() - SAFE:
            request = example(operations[method], document)
            response = await known.send(method, path, request, ("If-Match", '"other"'))

            assert response.status_code == 412, f"{method} {path}: {response.text}"
            assert "412" in operations[method]["responses"], f"{method} {path}"
            tried.append((method, path))
    assert len(tried) >= 8


def example(operation: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """A request with the smallest body that the document allows."""
    content = operation.get("requestBody", {}).get("content", {})
    if not content:
        return {}
    if "application/json" not in content:
        return {"content": b"", "headers": {"Content-Type": next(iter(content))}}
    schema = content["application/json"]["schema"]
    schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    fields = {name: schema["properties"][name] for name in schema.get("required", [])}
    return {"json": {name: example_of(field) for name, field in fields.items()}}


def example_of(field: dict[str, Any]) -> Any:
    if "examples" in field:
        return field["examples"][0]
    return EXAMPLES.get(field.get("format") or field.get("type"), "x")


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        *((name, ["{etag}"]) for name in CHANGES),
        ("purchase", ["W/{etag}"]),
        ("payer", ['"a,b", {etag}']),
        ("receipt", ['"a"', "{etag}"]),
        ("account", ["{etag}", '"a"']),
    ],
)
async def test_tag_that_is_current_matches(known: Known, name: str, lines: list[str]):
    await check_current_tag(known, CHANGES[name], lines)


@pytest.mark.parametrize("name", CHANGES)
async def test_any_is_what_there_is_and_other_tags_are_not(known: Known, name: str):
    await check_any_and_others(known, CHANGES[name])


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize("name", ["purchase", "deleted purchase", "account", "receipt"])
async def test_what_is_no_list_of_tags_changes_nothing(known: Known, name: str, header: str):
    await check_odd_lists(known, CHANGES[name], header)


async def test_other_refusals_come_first(known: Known):
    stale = ("If-Match", '"other"')
    path = "/v1/purchases/{purchase_id}"

    missing = await known.send("PATCH", NOWHERE, {"json": {"note": "A"}}, stale)
    assert missing.status_code == 404
    assert (await known.send("DELETE", NOWHERE, {}, stale)).status_code == 404
    assert (await known.send("PATCH", path, {"json": {"note": 1}}, stale)).status_code == 422
    known.headers = {}
    assert (await known.send("DELETE", path, {}, stale)).status_code == 401


@pytest.mark.parametrize(
    "name", ["purchase", "payer", "account", "receipt", "new purchase", "new payer"]
)
async def test_change_gives_the_etag_that_get_shows(known: Known, name: str):
    await check_etag_of_change(known, CHANGES[name])


async def test_new_account_gives_the_etag_that_it_shows(known: Known):
    body = {"email": "new@example.com", "name": "New", "password": "a long password"}
    made = await known.send("POST", "/v1/users", {"json": body})
    form = {"username": body["email"], "password": body["password"], "grant_type": "password"}
    login = await known.send("POST", "/v1/tokens", {"data": form})
    known.headers = {"Authorization": f"Bearer {login.json()['access_token']}"}

    shown = await known.get("/v1/users/me")
    again = await known.send("GET", "/v1/users/me", {}, ("If-None-Match", shown.headers["ETag"]))

    assert made.headers["ETag"] == shown.headers["ETag"]
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["Cache-Control"] == "private, no-store"


async def test_file_is_only_created_where_that_is_wanted(known: Known):
    await check_creation_of_file(known, CHANGES["receipt"], "/v1/purchases/{other_id}/receipt")


@pytest.mark.parametrize("name", CHANGES)
async def test_of_changes_at_once_that_saw_the_same_a_single_one_wins(known: Known, name: str):
    await check_changes_at_once(known, CHANGES[name], NOWHERE)


async def test_lines_of_if_none_match_are_one_list_for_what_is_read(known: Known):
    path = "/v1/purchases/{purchase_id}"
    known.headers = {}
    tag = ("If-None-Match", await known.etag(path))
    other = ("If-None-Match", '"other"')

    for lines in ([tag, other], [other, tag]):
        assert (await known.send("GET", path, {}, *lines)).status_code == 304
    assert (await known.send("GET", path, {}, ("If-None-Match", "no tag"))).status_code == 200


@pytest.mark.parametrize("header", ["Authorization", "Content-Type", "Idempotency-Key"])
async def test_header_that_has_one_value_is_refused_twice(known: Known, header: str):
    path, method, request = CHANGES["new payer"]
    request = request | {"headers": {"Content-Type": "application/json", "Idempotency-Key": "a"}}

    refused = await known.send(method, path, request, (header, "application/json"))

    assert refused.status_code == 422, refused.text
    assert refused.json()["errors"][0]["loc"] == ["header", header]
    assert len((await known.get("/v1/payers")).json()["items"]) == 1


async def test_two_tokens_are_none(known: Known):
    line = ("Authorization", known.headers["Authorization"])

    assert (await known.send("GET", "/v1/users/me", {}, line)).status_code == 401
