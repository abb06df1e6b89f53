"""How many sessions an account may have at a time."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import func, insert, select

from app.logins.session_limit import MAX_ENDED
from app.models import RefreshToken, User, UserSession
from app.models.user import new_session_id
from app.settings import Settings
from chassis.clock import now
from chassis.resources import Resources
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
from tests.metrics import scrape, total

MOST = 3


@pytest.fixture
def settings(settings: Settings) -> Settings:
    settings.tokens.max_sessions = MOST
    return settings


async def count(resources: Resources, model: type = UserSession) -> int:
    async with resources["sessions"].current() as session:
        return await session.scalar(select(func.count()).select_from(model)) or 0


async def test_login_above_the_bound_ends_the_oldest_session_at_once(
    client: httpx.AsyncClient, user: dict[str, Any], resources: Resources
):
    """Though it was cached a moment ago; those of other accounts are not counted."""
    other = REGISTER | {"email": "percy@example.com"}
    await client.post("/v1/users", json=other)
    others = await tokens_of(client, email=other["email"])
    old = [await tokens_of(client) for _ in range(MOST)]
    before = [await me(client, tokens["access_token"]) for tokens in old]
    latest = await tokens_of(client)

    assert [response.status_code for response in before] == [200] * MOST
    assert is_unauthorized(await me(client, old[0]["access_token"]))
    assert is_unauthorized(await refresh(client, old[0]["refresh_token"]), invalid=False)
    for tokens in [*old[1:], latest, others]:
        assert (await me(client, tokens["access_token"])).status_code == 200
        assert (await refresh(client, tokens["refresh_token"])).status_code == 200
    assert await count(resources) == MOST + 1


async def test_logins_at_the_same_time_leave_as_many_sessions_as_there_may_be(
    client: httpx.AsyncClient, user: dict[str, Any], resources: Resources
):
    responses = await asyncio.gather(*(log_in(client) for _ in range(20)))
    codes = [
        (await me(client, response.json()["access_token"])).status_code for response in responses
    ]

    assert {response.status_code for response in responses} == {200}
    assert sorted(codes) == [200] * MOST + [401] * (20 - MOST)
    assert await count(resources) == MOST
    assert await count(resources, RefreshToken) == MOST


async def test_what_was_there_before_the_bound_ends_in_batches(
    client: httpx.AsyncClient, user: dict[str, Any], resources: Resources
):
    then = now() - timedelta(days=1)
    rows = [
        {"id": new_session_id(), "user_id": user["id"], "created_at": then + timedelta(seconds=n)}
        for n in range(2 * MAX_ENDED + 20)
    ]
    async with resources["sessions"].write.begin() as session:
        await session.execute(insert(UserSession), rows)
    counts = []
    for _ in range(4):
        tokens = await tokens_of(client)
        counts.append(await count(resources))

    assert counts == [MAX_ENDED + 21, 22, MOST, MOST]
    assert (await me(client, tokens["access_token"])).status_code == 200


async def test_logins_refreshes_and_a_new_password_at_once_do_not_deadlock(
    client: httpx.AsyncClient, user: dict[str, Any], resources: Resources
):
    """Each locks the account before its sessions, and a session before its tokens."""
    for _ in range(5):
        sessions = [await tokens_of(client) for _ in range(MOST)]
        body = {"current_password": PASSWORD, "password": "prometheus unbound"}
        back = {"current_password": "prometheus unbound", "password": PASSWORD}
        headers = bearing(sessions[-1]["access_token"])
        responses = await asyncio.gather(
            client.patch("/v1/users/me", json=body, headers=headers),
            *(refresh(client, tokens["refresh_token"]) for tokens in sessions),
            *(log_in(client) for _ in range(6)),
        )
        latest = await log_in(client, "prometheus unbound")
        if latest.status_code == 200:
            headers = bearing(latest.json()["access_token"])
            await client.patch("/v1/users/me", json=back, headers=headers)
        assert {response.status_code for response in responses} <= {200, 401}
        assert await count(resources) <= MOST
    async with resources["sessions"].current() as session:
        users = await session.scalar(select(func.count()).select_from(User))
    samples = await scrape(client)

    assert users == 1
    assert total(samples, "database_deadlocks_total") == 0
