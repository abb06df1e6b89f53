"""An account that is deleted by its owner ends at once, with all that belongs to it."""

import asyncio
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import func, select

from app.jobs import REGISTRY, delete_accounts
from app.logins.password_throttle import PasswordThrottle
from app.main import create_app
from app.models import LoginNetwork, RefreshToken, User, UserSession
from app.schemas.user import Account, Role, UserRead
from app.services.accounts.deletion import DeletionService
from app.services.accounts.users import UserService
from app.settings import Settings
from chassis.errors import NotFound
from chassis.resources import Resources, open_resources
from tests.accounts import account_headers
from tests.conftest import client_of
from tests.jobs import job_context
from tests.logins import (
    PASSWORD,
    REGISTER,
    bearing,
    is_unauthorized,
    log_in,
    me,
    refresh,
    tokens_of,
)

URL = "/v1/users/me"


async def delete(
    client: httpx.AsyncClient, token: str, password: str = PASSWORD, **headers: str
) -> httpx.Response:
    body = {"current_password": password}
    return await client.request("DELETE", URL, json=body, headers=bearing(token) | headers)


async def counts(resources: Resources) -> list[int]:
    async with resources["sessions"].current() as session:
        return [
            await session.scalar(select(func.count()).select_from(model)) or 0
            for model in (User, UserSession, RefreshToken, LoginNetwork)
        ]


async def test_account_ends_at_once_on_every_worker_and_leaves_nothing(
    client: httpx.AsyncClient, user: dict[str, Any], resources: Resources, settings: Settings
):
    sessions = [await tokens_of(client) for _ in range(2)]
    async with (
        open_resources(settings) as others,
        client_of(create_app(settings), others) as elsewhere,
    ):
        before = [await me(elsewhere, tokens["access_token"]) for tokens in sessions]
        deleted = await delete(client, sessions[0]["access_token"])
        after = [await me(elsewhere, tokens["access_token"]) for tokens in sessions]
        refreshed = [await refresh(elsewhere, tokens["refresh_token"]) for tokens in sessions]

    assert [response.status_code for response in before] == [200, 200]
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert all(map(is_unauthorized, after))
    assert all(is_unauthorized(response, invalid=False) for response in refreshed)
    assert is_unauthorized(await log_in(client), invalid=False)
    assert await counts(resources) == [0, 0, 0, 0]


async def test_deletion_invalidates_what_is_cached_of_the_account(
    client: httpx.AsyncClient, user: dict[str, Any], resources: Resources
):
    """Not only what belongs to a session."""
    loads = 0

    async def load() -> int:
        nonlocal loads
        loads += 1
        return loads

    async def cached() -> int:
        tags = [f"user:{user['id']}"]
        return await resources["cache"].get_or_load("a value", int, load, ttl=60, tags=tags)

    token = (await tokens_of(client))["access_token"]
    before = [await cached(), await cached()]
    await delete(client, token)

    assert (before, await cached()) == ([1, 1], 2)


async def test_address_is_free_for_another_account(client: httpx.AsyncClient, user: dict[str, Any]):
    await delete(client, (await tokens_of(client))["access_token"])
    made = await client.post("/v1/users", json=REGISTER)

    assert made.status_code == 201
    assert made.json()["id"] > user["id"]
    assert (await log_in(client)).status_code == 200


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({"current_password": "a guess"}, ["body", "current_password"]),
        ({}, ["body", "current_password"]),
        ({"current_password": PASSWORD, "sure": True}, ["body", "sure"]),
    ],
)
async def test_deletion_needs_the_password(
    client: httpx.AsyncClient, user: dict[str, Any], body: dict[str, Any], loc: list[str]
):
    token = (await tokens_of(client))["access_token"]
    refused = await client.request("DELETE", URL, json=body, headers=bearing(token))
    empty = await client.delete(URL, headers=bearing(token))

    assert (refused.status_code, empty.status_code) == (422, 422)
    assert refused.json()["errors"][0]["loc"] == loc
    assert (await me(client, token)).status_code == 200


async def test_deletion_is_conditional(client: httpx.AsyncClient, user: dict[str, Any]):
    token = (await tokens_of(client))["access_token"]
    seen = (await me(client, token)).headers["ETag"]
    await client.patch(URL, json={"name": "Mary Shelley"}, headers=bearing(token))
    stale = await delete(client, token, **{"If-Match": seen})
    current = (await me(client, token)).headers["ETag"]
    done = await delete(client, token, **{"If-Match": current})

    assert (stale.status_code, done.status_code) == (412, 204)


async def test_last_administrator_cannot_be_deleted(
    client: httpx.AsyncClient, user: dict[str, Any], resources: Resources
):
    await UserService(resources).set_role(REGISTER["email"], Role.ADMIN)
    token = (await tokens_of(client))["access_token"]
    refused = await delete(client, token)
    await account_headers(Role.ADMIN, resources)
    done = await delete(client, token)

    assert (refused.status_code, done.status_code) == (409, 204)
    assert "last administrator" in refused.json()["detail"]


async def test_of_two_administrators_who_leave_at_once_one_stays(
    client: httpx.AsyncClient, user: dict[str, Any], resources: Resources
):
    other = "percy@example.com"
    await client.post("/v1/users", json=REGISTER | {"email": other})
    for email in (REGISTER["email"], other):
        await UserService(resources).set_role(email, Role.ADMIN)
    tokens = [
        (await tokens_of(client, email=email))["access_token"]
        for email in (REGISTER["email"], other)
    ]
    responses = await asyncio.gather(*(delete(client, token) for token in tokens))

    assert sorted(response.status_code for response in responses) == [204, 409]


async def test_account_is_deleted_once_and_its_other_requests_fail_with_no_500(
    client: httpx.AsyncClient, user: dict[str, Any], resources: Resources
):
    for _ in range(4):
        sessions = [await tokens_of(client) for _ in range(3)]
        own = bearing(sessions[0]["access_token"])
        new = {"current_password": PASSWORD, "password": "prometheus unbound"}
        deletions = [delete(client, tokens["access_token"]) for tokens in sessions]
        responses = await asyncio.gather(
            *deletions,
            client.patch(URL, json={"name": "Mary Shelley"}, headers=own),
            client.patch(URL, json=new, headers=bearing(sessions[1]["access_token"])),
            client.delete(f"{URL}/sessions", headers=own),
            *(refresh(client, tokens["refresh_token"]) for tokens in sessions),
            *(log_in(client) for _ in range(3)),
            client.post("/v1/users", json=REGISTER),
        )
        statuses = [response.status_code for response in responses]

        assert set(statuses) <= {200, 201, 204, 401, 404, 409, 422}, statuses
        await clear(client, resources)
        assert await counts(resources) == [0, 0, 0, 0]
        await client.post("/v1/users", json=REGISTER)


async def clear(client: httpx.AsyncClient, resources: Resources) -> None:
    """Delete what the last round may have left: an account that was registered again, or one whose
    password was changed first.
    """
    for password in (PASSWORD, "prometheus unbound"):
        if (response := await log_in(client, password)).status_code == 200:
            await delete(client, response.json()["access_token"], password)
    await DeletionService(resources).delete_all(60)


async def test_what_the_service_did_not_finish_a_periodic_job_does(
    client: httpx.AsyncClient, user: dict[str, Any], resources: Resources
):
    """As after a crash right after the response. Until then there is no such account."""
    account = Account(session_id=1, user=UserRead(**user))
    admin = await account_headers(Role.ADMIN, resources)
    throttle = PasswordThrottle(resources, "127.0.0.1")
    await DeletionService(resources).delete(account, PASSWORD, throttle)
    async with resources["sessions"].current() as session:
        left = (await session.scalars(select(User).where(User.id == user["id"]))).one()
    shown = await client.get(f"/v1/users/{user['id']}", headers=admin)
    listed = await client.get("/v1/users", headers=admin)
    with pytest.raises(NotFound):
        await UserService(resources).get(user["id"])
    await delete_accounts(job_context(resources))

    assert "delete_accounts" in REGISTRY.periodic
    for secret in (user["email"], user["name"]):
        assert secret not in (left.email, left.name)
    assert left.password_hash == ""
    assert shown.status_code == 404
    assert user["id"] not in [item["id"] for item in listed.json()["items"]]
    assert (await counts(resources))[0] == 1
