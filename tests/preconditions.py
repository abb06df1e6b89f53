"""What tests of `If-Match` and `If-None-Match` have in common, whatever it is that has an ETag."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx2 as httpx

from tests.editor import Editor

# Where something that has an ETag is shown, and how it is changed.
Change = tuple[str, str, dict[str, Any]]
DONE = (200, 201, 204)


class Known:
    """One of everything, and how to ask for it."""

    def __init__(self, editor: Editor) -> None:
        self.client, self.headers = editor.client, editor.editor
        self.ids: dict[str, int] = {}

    async def send(
        self, method: str, path: str, request: dict[str, Any], *conditions: tuple[str, str]
    ) -> httpx.Response:
        headers = [*self.headers.items(), *request.get("headers", {}).items(), *conditions]
        rest = {name: value for name, value in request.items() if name != "headers"}
        url = path.format_map(self.ids)
        return await self.client.request(method, url, headers=headers, **rest)

    async def get(self, path: str) -> httpx.Response:
        return await self.send("GET", path, {})

    async def etag(self, path: str) -> str:
        return (await self.get(path)).headers["ETag"]


async def check_current_tag(known: Known, change: Change, lines: list[str]) -> None:
    path, method, request = change
    etag = await known.etag(path)
    tags = [line.format(etag=etag) for line in lines]

    excluded = await known.send(method, path, request, *[("If-None-Match", tag) for tag in tags])
    same = await known.etag(path)
    done = await known.send(method, path, request, *[("If-Match", tag) for tag in tags])

    assert (excluded.status_code, same) == (412, etag)
    assert done.status_code in DONE, done.text


async def check_any_and_others(known: Known, change: Change) -> None:
    path, method, request = change
    etag = await known.etag(path)

    for condition in [("If-None-Match", "*"), ("If-Match", '"other"')]:
        assert (await known.send(method, path, request, condition)).status_code == 412
    both = await known.send(method, path, request, ("If-Match", etag), ("If-None-Match", etag))
    assert both.status_code == 412
    assert await known.etag(path) == etag

    conditions = [("If-Match", "*"), ("If-None-Match", '"other"')]
    done = await known.send(method, path, request, *conditions)
    assert done.status_code in DONE, done.text


async def check_odd_lists(known: Known, change: Change, header: str) -> None:
    path, method, request = change
    etag = await known.etag(path)

    for odd in ("", "other", '"other', '"a", b', '*, "a"', "'a'", '"a b"', f"{etag} other"):
        refused = await known.send(method, path, request, (header, odd))

        assert refused.status_code == 422, odd
        assert refused.json()["errors"][0]["loc"] == ["header", header]
    assert await known.etag(path) == etag


async def check_etag_of_change(known: Known, change: Change) -> None:
    path, method, request = change

    changed = await known.send(method, path, request)
    shown = await known.get(changed.headers.get("Location", path))

    assert changed.headers["ETag"] == shown.headers["ETag"]


async def check_creation_of_file(known: Known, change: Change, other: str) -> None:
    """`other`: where there is none yet."""
    _, method, request = change

    missing = await known.send(method, other, request, ("If-Match", "*"))
    created = await known.send(method, other, request, ("If-None-Match", "*"))
    shown = await known.get(other)
    twice = await known.send(method, other, request, ("If-None-Match", "*"))

    assert (missing.status_code, created.status_code, twice.status_code) == (412, 200, 412)
    assert created.headers["ETag"] == shown.headers["ETag"]
    assert await known.etag(other) == shown.headers["ETag"]


async def check_changes_at_once(known: Known, change: Change, nowhere: str) -> None:
    path, method, request = change
    etag = await known.etag(path)
    # Connections that must first be opened would come one after the other.
    await asyncio.gather(*(known.send("DELETE", nowhere, {}) for _ in range(6)))

    responses = await asyncio.gather(
        *(known.send(method, path, _another(request, n), ("If-Match", etag)) for n in range(6))
    )

    statuses = sorted(response.status_code for response in responses)
    assert statuses[0] in DONE, [response.text for response in responses]
    assert set(statuses[1:]) == ({404} if method == "DELETE" else {412}), statuses


def _another(request: dict[str, Any], n: int) -> dict[str, Any]:
    """So that no two changes leave the same behind."""
    body = request.get("json")
    if body is None:
        return request
    texts = {
        name: f"{body[name]} {n}" for name in ("name", "note", "title", "text") if name in body
    }
    numbers = {"number": str(uuid4())} if "number" in body else {}
    return request | {"json": body | texts | numbers}
