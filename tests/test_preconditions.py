"""`If-Match` and `If-None-Match` hold on whatever changes something that shows an ETag."""

import asyncio
from pathlib import Path
from string import Formatter
from typing import Any

import httpx2
import pytest

from app.main import create_app
from app.settings import FilesSettings, ProcessesSettings, Settings
from tests.catalogue import Catalogue
from tests.images import PNG, image

SAFE = {"get", "head", "options"}
REVIEW = {"rating": 4, "text": "Read in one night."}
# What has an ETag: where it is shown, how it is changed.
CHANGES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "book": ("/v1/books/{book_id}", "PATCH", {"json": {"title": "Second"}}),
    "deleted book": ("/v1/books/{book_id}", "DELETE", {}),
    "author": ("/v1/authors/{author_id}", "PATCH", {"json": {"name": "Second"}}),
    "deleted author": ("/v1/authors/{author_id}", "DELETE", {}),
    "review": ("/v1/books/{book_id}/reviews/{review_id}", "PATCH", {"json": {"rating": 1}}),
    "deleted review": ("/v1/books/{book_id}/reviews/{review_id}", "DELETE", {}),
    "account": ("/v1/users/me", "PATCH", {"json": {"name": "Second"}}),
    "cover": ("/v1/books/{book_id}/cover", "PUT", {"content": image(), "headers": PNG}),
    "new book": ("/v1/books", "POST", {"json": {"title": "New", "author_ids": [0]}}),
    "new author": ("/v1/authors", "POST", {"json": {"name": "New"}}),
    "new review": ("/v1/books/{other_id}/reviews", "POST", {"json": REVIEW}),
}


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    settings.files = FilesSettings(url=f"file://{tmp_path}")
    settings.processes = ProcessesSettings(timeout=60, max_wait=60)
    settings.request.timeout = 60
    return settings


class Known:
    """One of everything, and how to ask for it."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.client, self.editor = catalogue.client, catalogue.editor
        self.ids: dict[str, int] = {}

    async def make(self, catalogue: Catalogue) -> None:
        book, other = await catalogue.add_book(), await catalogue.add_book("Other")
        self.ids |= {"book_id": book["id"], "other_id": other["id"]}
        self.ids["author_id"] = await catalogue.add_author("Alone")
        review = await self.send("POST", "/v1/books/{book_id}/reviews", {"json": REVIEW})
        self.ids["review_id"] = review.json()["id"]

    async def make_cover(self) -> None:
        path, method, request = CHANGES["cover"]
        assert (await self.send(method, path, request)).status_code == 200

    async def send(
        self, method: str, path: str, request: dict[str, Any], *conditions: tuple[str, str]
    ) -> httpx2.Response:
        if "author_ids" in (body := request.get("json", {})):
            request = request | {"json": body | {"author_ids": [self.ids["author_id"]]}}
        headers = [*self.editor.items(), *request.get("headers", {}).items(), *conditions]
        rest = {name: value for name, value in request.items() if name != "headers"}
        url = path.format_map(self.ids)
        return await self.client.request(method, url, headers=headers, **rest)

    async def get(self, path: str) -> httpx2.Response:
        return await self.send("GET", path, {})


@pytest.fixture
async def known(catalogue: Catalogue, request: pytest.FixtureRequest) -> Known:
    known = Known(catalogue)
    await known.make(catalogue)
    if "cover" in request.node.name:
        await known.make_cover()
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
    await known.make_cover()
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
            answer = await known.send(method, path, request, ("If-Match", '"other"'))

            assert answer.status_code == 412, f"{method} {path}: {answer.text}"
            assert "412" in operations[method]["responses"], f"{method} {path}"
            tried.append((method, path))
    assert len(tried) >= 11


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
        ("book", ["W/{etag}"]),
        ("author", ['"a,b", {etag}']),
        ("review", ['"a"', "{etag}"]),
        ("account", ["{etag}", '"a"']),
    ],
)
async def test_tag_that_is_current_matches(known: Known, name: str, lines: list[str]):
    path, method, request = CHANGES[name]
    etag = (await known.get(path)).headers["ETag"]
    tags = [line.format(etag=etag) for line in lines]

    excluded = await known.send(method, path, request, *[("If-None-Match", tag) for tag in tags])
    same = (await known.get(path)).headers["ETag"]
    done = await known.send(method, path, request, *[("If-Match", tag) for tag in tags])

    assert (excluded.status_code, same) == (412, etag)
    assert done.status_code in (200, 201, 204), done.text


@pytest.mark.parametrize("name", CHANGES)
async def test_any_is_what_there_is_and_other_tags_are_not(known: Known, name: str):
    path, method, request = CHANGES[name]
    etag = (await known.get(path)).headers["ETag"]

    for condition in [("If-None-Match", "*"), ("If-Match", '"other"')]:
        assert (await known.send(method, path, request, condition)).status_code == 412
    both = await known.send(method, path, request, ("If-Match", etag), ("If-None-Match", etag))
    assert both.status_code == 412
    assert (await known.get(path)).headers["ETag"] == etag

    conditions = [("If-Match", "*"), ("If-None-Match", '"other"')]
    done = await known.send(method, path, request, *conditions)
    assert done.status_code in (200, 201, 204), done.text


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize("name", ["book", "deleted book", "account", "cover"])
async def test_what_is_no_list_of_tags_changes_nothing(known: Known, name: str, header: str):
    path, method, request = CHANGES[name]
    etag = (await known.get(path)).headers["ETag"]

    for odd in ("", "other", '"other', '"a", b', '*, "a"', "'a'", '"a b"', f"{etag} other"):
        refused = await known.send(method, path, request, (header, odd))

        assert refused.status_code == 422, odd
        assert refused.json()["errors"][0]["loc"] == ["header", header]
    assert (await known.get(path)).headers["ETag"] == etag


async def test_other_refusals_come_first(known: Known):
    stale = ("If-Match", '"other"')
    missing = {"json": {"title": "A"}}

    assert (await known.send("PATCH", "/v1/books/987654321", missing, stale)).status_code == 404
    assert (await known.send("DELETE", "/v1/books/987654321", {}, stale)).status_code == 404
    invalid = await known.send("PATCH", "/v1/books/{book_id}", {"json": {"title": 1}}, stale)
    assert invalid.status_code == 422
    known.editor = {}
    assert (await known.send("DELETE", "/v1/books/{book_id}", {}, stale)).status_code == 401


@pytest.mark.parametrize("name", ["book", "author", "review", "account", "new book", "new author"])
async def test_change_gives_the_etag_that_get_shows(known: Known, name: str):
    path, method, request = CHANGES[name]

    changed = await known.send(method, path, request)
    shown = await known.get(changed.headers.get("Location", path))

    assert changed.headers["ETag"] == shown.headers["ETag"]


async def test_new_account_gives_the_etag_that_it_shows(known: Known):
    body = {"email": "new@example.com", "name": "New", "password": "a long password"}
    made = await known.send("POST", "/v1/users", {"json": body})
    form = {"username": body["email"], "password": body["password"], "grant_type": "password"}
    login = await known.send("POST", "/v1/tokens", {"data": form})
    known.editor = {"Authorization": f"Bearer {login.json()['access_token']}"}

    shown = await known.get("/v1/users/me")
    again = await known.send("GET", "/v1/users/me", {}, ("If-None-Match", shown.headers["ETag"]))

    assert made.headers["ETag"] == shown.headers["ETag"]
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["Cache-Control"] == "private, no-store"


async def test_cover_is_only_created_where_that_is_wanted(known: Known):
    path, method, request = CHANGES["cover"]
    other = path.replace("book_id", "other_id")

    missing = await known.send(method, other, request, ("If-Match", "*"))
    created = await known.send(method, other, request, ("If-None-Match", "*"))
    shown = await known.get(other)
    twice = await known.send(method, other, request, ("If-None-Match", "*"))

    assert (missing.status_code, created.status_code, twice.status_code) == (412, 200, 412)
    assert created.headers["ETag"] == shown.headers["ETag"]
    assert (await known.get(other)).headers["ETag"] == shown.headers["ETag"]


@pytest.mark.parametrize("name", CHANGES)
async def test_of_changes_at_once_that_saw_the_same_a_single_one_wins(known: Known, name: str):
    path, method, request = CHANGES[name]
    etag = (await known.get(path)).headers["ETag"]
    # Connections that must first be opened would come one after the other.
    await asyncio.gather(*(known.send("DELETE", "/v1/books/987654321", {}) for _ in range(6)))

    answers = await asyncio.gather(
        *(known.send(method, path, another(request, n), ("If-Match", etag)) for n in range(6))
    )

    statuses = sorted(answer.status_code for answer in answers)
    assert statuses[0] in (200, 201, 204), [answer.text for answer in answers]
    assert set(statuses[1:]) == ({404} if method == "DELETE" else {412}), statuses


def another(request: dict[str, Any], n: int) -> dict[str, Any]:
    """So that no two changes leave the same behind."""
    names = {name: f"{value} {n}" for name, value in request.get("json", {}).items()}
    names = {name: value for name, value in names.items() if name in ("name", "title", "text")}
    return request | {"json": request["json"] | names} if "json" in request else request


async def test_lines_of_if_none_match_are_one_list_for_what_is_read(known: Known):
    path = "/v1/books/{book_id}"
    known.editor = {}
    tag = ("If-None-Match", (await known.get(path)).headers["ETag"])
    other = ("If-None-Match", '"other"')

    for lines in ([tag, other], [other, tag]):
        assert (await known.send("GET", path, {}, *lines)).status_code == 304
    assert (await known.send("GET", path, {}, ("If-None-Match", "no tag"))).status_code == 200


@pytest.mark.parametrize("header", ["Authorization", "Content-Type", "Idempotency-Key"])
async def test_header_that_has_one_value_is_refused_twice(known: Known, header: str):
    path, method, request = CHANGES["new author"]
    request = request | {"headers": {"Content-Type": "application/json", "Idempotency-Key": "a"}}

    refused = await known.send(method, path, request, (header, "application/json"))

    assert refused.status_code == 422, refused.text
    assert refused.json()["errors"][0]["loc"] == ["header", header]
    assert len((await known.get("/v1/authors")).json()["items"]) == 3


async def test_two_tokens_are_none(known: Known):
    line = ("Authorization", known.editor["Authorization"])

    assert (await known.send("GET", "/v1/users/me", {}, line)).status_code == 401
