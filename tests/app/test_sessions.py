"""Where an account is logged in, and the end of its sessions by itself."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import func, select, update

from app.main import create_app
from app.models import UserSession
from app.settings import Settings
from chassis.clock import now
from chassis.resources import Resources, open_resources
from tests.conftest import client_of
from tests.logins import REGISTER, bearing, is_unauthorized, log_in, me, refresh, tokens_of

URL = "/v1/users/me/sessions"


async def sessions_of(client: httpx.AsyncClient, token: str, **query: Any) -> dict[str, Any]:
    response = await client.get(URL, params=query, headers=bearing(token))
    assert response.status_code == 200, response.text
    shown: dict[str, Any] = response.json()
    return shown


async def items_of(client: httpx.AsyncClient, token: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await sessions_of(client, token))["items"]
    return items


async def token_of(client: httpx.AsyncClient, **form: str) -> str:
    token: str = (await tokens_of(client, **form))["access_token"]
    return token


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (b"Firefox/149.0 (X11; Linux)", "Firefox/149.0 (X11; Linux)"),
        (b"a\x00b\x1b[31mc\x85\xe9", "ab[31mc\u00e9"),
        (b" " * 7, None),
        (b"x" * 5000, "x" * 200),
    ],
)
async def test_session_shows_the_client_of_its_login(
    settings: Settings, resources: Resources, user: dict[str, Any], sent: bytes, shown: str | None
):
    app = create_app(settings)
    async with client_of(app, resources, "198.51.100.7") as client:
        client.headers = httpx.Headers([(b"User-Agent", sent)])
        token = await token_of(client)
        client.headers["User-Agent"] = "another"
        [session] = await items_of(client, token)

    assert session["user_agent"] == shown
    assert session["address"] == "198.51.100.7"
    assert session["is_current"] is True
    assert session["id"].isdigit()


async def test_login_without_a_user_agent(client: httpx.AsyncClient, user: dict[str, Any]):
    del client.headers["User-Agent"]
    token = await token_of(client)

    [session] = await items_of(client, token)
    assert session["user_agent"] is None


async def test_last_use_is_the_latest_refresh(
    client: httpx.AsyncClient, user: dict[str, Any], resources: Resources
):
    tokens = await tokens_of(client)
    then = now() - timedelta(days=2)
    async with resources["sessions"].write.begin() as session:
        await session.execute(update(UserSession).values(created_at=then, used_at=then))
    [before] = await items_of(client, tokens["access_token"])
    await refresh(client, tokens["refresh_token"])
    [after] = await items_of(client, tokens["access_token"])

    assert datetime.fromisoformat(before["used_at"]) == then
    assert datetime.fromisoformat(after["used_at"]) > then + timedelta(days=1)
    assert datetime.fromisoformat(after["created_at"]) == then


async def test_pages_have_each_session_of_the_account_once_the_latest_first(
    client: httpx.AsyncClient, user: dict[str, Any]
):
    await client.post("/v1/users", json=REGISTER | {"email": "percy@example.com"})
    await token_of(client, email="percy@example.com")
    for _ in range(4):
        token = await token_of(client)
    first = await sessions_of(client, token, limit=3)
    second = await sessions_of(client, token, limit=3, after=first["next"])

    items = [*first["items"], *second["items"]]
    assert [len(page["items"]) for page in (first, second)] == [3, 1]
    assert second["next"] is None
    assert len({item["id"] for item in items}) == 4
    assert [item["is_current"] for item in items] == [True, False, False, False]
    times = [item["created_at"] for item in items]
    assert times == sorted(times, reverse=True)


async def test_session_that_is_ended_ends_at_once_on_every_worker(
    client: httpx.AsyncClient, user: dict[str, Any], settings: Settings
):
    lost = await tokens_of(client)
    mine = await token_of(client)
    [_, other] = await items_of(client, mine)
    async with (
        open_resources(settings) as resources,
        client_of(create_app(settings), resources) as elsewhere,
    ):
        before = await me(elsewhere, lost["access_token"])
        ended = await client.delete(f"{URL}/{other['id']}", headers=bearing(mine))
        after = await me(elsewhere, lost["access_token"])
        refreshed = await refresh(elsewhere, lost["refresh_token"])
        stays = await me(elsewhere, mine)
    again = await client.delete(f"{URL}/{other['id']}", headers=bearing(mine))

    assert (before.status_code, ended.status_code) == (200, 204)
    assert is_unauthorized(after)
    assert is_unauthorized(refreshed, invalid=False)
    assert stays.status_code == 200
    assert again.status_code == 404


async def test_own_session_can_be_ended_by_its_id(client: httpx.AsyncClient, user: dict[str, Any]):
    token = await token_of(client)
    [own] = await items_of(client, token)
    ended = await client.delete(f"{URL}/{own['id']}", headers=bearing(token))

    assert ended.status_code == 204
    assert is_unauthorized(await me(client, token))


async def test_session_of_another_account_does_not_exist(
    client: httpx.AsyncClient, user: dict[str, Any]
):
    await client.post("/v1/users", json=REGISTER | {"email": "percy@example.com"})
    theirs = await token_of(client, email="percy@example.com")
    mine = await token_of(client)
    [other] = await items_of(client, theirs)
    statuses = [
        (await client.delete(f"{URL}/{id}", headers=bearing(mine))).status_code
        for id in (other["id"], 1, 2**63 - 1, 2**63, "0", "07", "x")
    ]

    assert statuses == [404, 404, 404, 422, 422, 422, 422]
    assert (await me(client, theirs)).status_code == 200


async def test_all_others_are_ended_and_the_present_one_stays(
    client: httpx.AsyncClient, user: dict[str, Any]
):
    await client.post("/v1/users", json=REGISTER | {"email": "percy@example.com"})
    theirs = await token_of(client, email="percy@example.com")
    others = [await tokens_of(client) for _ in range(3)]
    for tokens in others:
        await me(client, tokens["access_token"])
    mine = await tokens_of(client)
    ended = await client.delete(URL, headers=bearing(mine["access_token"]))

    assert ended.status_code == 204
    for tokens in others:
        assert is_unauthorized(await me(client, tokens["access_token"]))
        assert is_unauthorized(await refresh(client, tokens["refresh_token"]), invalid=False)
    assert [each["is_current"] for each in await items_of(client, mine["access_token"])] == [True]
    assert (await refresh(client, mine["refresh_token"])).status_code == 200
    assert (await me(client, theirs)).status_code == 200


async def test_ends_logins_and_refreshes_at_once_fail_nobody(
    client: httpx.AsyncClient, user: dict[str, Any], resources: Resources
):
    for _ in range(3):
        sessions = [await tokens_of(client) for _ in range(4)]
        mine = bearing(sessions[-1]["access_token"])
        ids = [each["id"] for each in await items_of(client, sessions[-1]["access_token"])]
        responses = await asyncio.gather(
            client.delete(URL, headers=mine),
            *(client.delete(f"{URL}/{id}", headers=mine) for id in ids[1:]),
            *(refresh(client, tokens["refresh_token"]) for tokens in sessions),
            *(log_in(client) for _ in range(3)),
        )

        assert {each.status_code for each in responses} <= {200, 204, 401, 404}
        assert (await client.delete(URL, headers=mine)).status_code == 204
        async with resources["sessions"].current() as session:
            assert await session.scalar(select(func.count()).select_from(UserSession)) == 1


async def test_sessions_need_a_token(client: httpx.AsyncClient):
    for method, path in (("GET", URL), ("DELETE", URL), ("DELETE", f"{URL}/7")):
        assert is_unauthorized(await client.request(method, path), invalid=False)
