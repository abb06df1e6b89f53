from typing import Any

import httpx2 as httpx
import pytest

from app.schemas.user import Role
from chassis.resources import Resources
from tests.accounts import account_headers

PATH = "/v1/notes"
# In ascending order of their ids.
NOTES: list[dict[str, Any]] = [
    {
        "title": "a",
        "text": "First line\nand more",
    },
    {
        "title": "b",
        "text": "Second",
    },
    {
        "title": "c",
        "text": "Third",
    },
]


async def add_note(
    client: httpx.AsyncClient, headers: dict[str, str], number: int = 0, **fields: Any
) -> dict[str, Any]:
    body = NOTES[number] | fields
    response = await client.post(PATH, json=body, headers=headers)
    assert response.status_code == 201, response.text
    note: dict[str, Any] = response.json()
    return note


@pytest.fixture
async def headers(resources: Resources) -> dict[str, str]:
    return await account_headers(Role.EDITOR, resources)


async def test_note_is_returned_as_it_is_stored(client: httpx.AsyncClient, headers: dict[str, str]):
    stored = await add_note(client, headers)

    read = await client.get(f"{PATH}/{stored['id']}", headers=headers)

    assert read.json() == stored
    assert read.json() | NOTES[0] == stored
    assert read.headers["ETag"]


async def test_changed_note_is_seen_at_once_and_needs_the_present_etag(
    client: httpx.AsyncClient, headers: dict[str, str]
):
    stored = await add_note(client, headers)
    path = f"{PATH}/{stored['id']}"
    before = await client.get(path, headers=headers)
    await client.get(PATH, headers=headers)
    change = {"title": NOTES[2]["title"]}

    changed = await client.patch(path, json=change, headers=headers)
    read = await client.get(path, headers=headers)
    listed = await client.get(PATH, headers=headers)
    stale = headers | {"If-Match": before.headers["ETag"]}
    refused = await client.patch(path, json=change, headers=stale)

    assert changed.status_code == 200, changed.text
    assert read.json() == changed.json()
    assert listed.json()["items"] == [read.json()]
    assert read.json() | {"updated_at": ""} == stored | change | {"version": 2, "updated_at": ""}
    assert refused.status_code == 412


async def test_repeated_post_with_a_key_makes_one_note(
    client: httpx.AsyncClient, headers: dict[str, str]
):
    keyed = headers | {"Idempotency-Key": "one"}
    body = NOTES[1]

    first = await client.post(PATH, json=body, headers=keyed)
    second = await client.post(PATH, json=body, headers=keyed)

    assert first.status_code == second.status_code == 201
    assert first.json() == second.json()


async def test_deleted_note_is_gone(client: httpx.AsyncClient, headers: dict[str, str]):
    stored = await add_note(client, headers)
    path = f"{PATH}/{stored['id']}"
    await client.get(path, headers=headers)

    deleted = await client.delete(path, headers=headers)

    assert deleted.status_code == 204
    assert (await client.get(path, headers=headers)).status_code == 404
    assert (await client.delete(path, headers=headers)).status_code == 404


async def test_everybody_may_read_and_editors_may_write_notes(
    client: httpx.AsyncClient, headers: dict[str, str], resources: Resources
):
    stored = await add_note(client, headers)
    path = f"{PATH}/{stored['id']}"
    reader = await account_headers(Role.READER, resources)

    assert (await client.get(path)).json() == stored
    assert (await client.delete(path)).status_code == 401
    assert (await client.delete(path, headers=reader)).status_code == 403
    assert (await client.get(path)).json() == stored
