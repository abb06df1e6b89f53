"""What has changed about accounts is in the audit log, with the change and only with it."""

from datetime import datetime, timedelta
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import func, insert, select, text

from app.models import AuditEvent, UserSession
from app.schemas.user import Role
from app.services.accounts.deletion import DeletionService
from app.services.accounts.users import UserService
from app.services.retention import BATCH, RetentionService
from app.settings import Settings
from chassis.clock import now
from chassis.request_context import current_request
from chassis.resources import Resources
from tests.accounts import account_headers
from tests.app.test_retention import REFUSALS, execute
from tests.databases import mariadb_only
from tests.logins import EMAIL, PASSWORD, bearing, is_unauthorized, log_in, refresh, tokens_of
from tests.queries import recorded

URL = "/v1/audit"
NEW = "prometheus unbound"


@pytest.fixture
async def admin(resources: Resources) -> dict[str, str]:
    return await account_headers(Role.ADMIN, resources)


async def log_of(
    client: httpx.AsyncClient, admin: dict[str, str], **query: Any
) -> list[dict[str, Any]]:
    """All pages, the latest event first."""
    items: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        response = await client.get(URL, params={**query, **after}, headers=admin)
        assert response.status_code == 200, response.text
        items += response.json()["items"]
        if (cursor := response.json()["next"]) is None:
            return items
        after = {"after": cursor}


def short(events: list[dict[str, Any]]) -> list[tuple[str, dict[str, str]]]:
    """The oldest first."""
    return [(each["event"], each["details"]) for each in reversed(events)]


async def test_each_change_is_a_row_with_who_and_from_where(
    client: httpx.AsyncClient, user: dict[str, Any], admin: dict[str, str], resources: Resources
):
    login = await log_in(client)
    token = login.json()["access_token"]
    [session] = (await client.get("/v1/users/me/sessions", headers=bearing(token))).json()["items"]
    [latest, first] = await log_of(client, admin)

    assert (first["event"], first["account_id"], first["actor_id"]) == (
        "registered",
        user["id"],
        user["id"],
    )
    assert latest | {"id": 0, "created_at": ""} == {
        "id": 0,
        "event": "login",
        "account_id": user["id"],
        "actor_id": user["id"],
        "session_id": session["id"],
        "client": "127.0.0.1",
        "request_id": login.headers["X-Request-ID"],
        "details": {},
        "created_at": "",
    }
    assert now() - datetime.fromisoformat(latest["created_at"]) < timedelta(minutes=5)


async def test_changes_of_an_account(
    client: httpx.AsyncClient, user: dict[str, Any], admin: dict[str, str], resources: Resources
):
    for _ in range(2):
        await tokens_of(client)
    tokens = await tokens_of(client)
    mine = bearing(tokens["access_token"])
    await client.delete("/v1/users/me/sessions", headers=mine)
    await tokens_of(client)
    body = {"current_password": PASSWORD, "password": NEW}
    await client.patch("/v1/users/me", json=body, headers=mine)
    await client.delete("/v1/tokens", headers=mine)
    current_request.set(None)  # as in a command
    await UserService(resources).set_role(EMAIL, Role.EDITOR)
    path = f"/v1/users/{user['id']}"
    await tokens_of(client, password=NEW)
    await client.patch(path, json={"role": "admin", "disabled": True}, headers=admin)
    await client.patch(path, json={"disabled": False}, headers=admin)
    events = await log_of(client, admin, account_id=user["id"], limit=3)

    login: tuple[str, dict[str, str]] = ("login", {})
    assert short(events) == [
        ("registered", {}),
        *[login] * 3,
        *[("session_ended", {"reason": "ended by its account"})] * 2,
        login,
        ("password_changed", {}),
        ("session_ended", {"reason": "password change"}),
        ("session_ended", {"reason": "logout"}),
        ("role_changed", {"role": "editor"}),
        login,
        ("role_changed", {"role": "admin"}),
        ("account_disabled", {}),
        ("session_ended", {"reason": "disabled"}),
        ("account_enabled", {}),
    ]
    by_admin = (await client.get("/v1/users/me", headers=admin)).json()["id"]
    actors = [each["actor_id"] for each in reversed(events)]
    assert actors == [user["id"]] * 10 + [None, user["id"]] + [by_admin] * 4


async def test_what_is_refused_or_changes_nothing_is_no_row(
    client: httpx.AsyncClient, user: dict[str, Any], admin: dict[str, str]
):
    token = (await tokens_of(client))["access_token"]
    before = await log_of(client, admin)
    await log_in(client, "a guess")
    body = {"current_password": "a guess", "password": NEW}
    await client.patch("/v1/users/me", json=body, headers=bearing(token))
    await client.patch(f"/v1/users/{user['id']}", json={"role": "reader"}, headers=admin)
    await client.delete("/v1/users/me/sessions", headers=bearing(token))
    await refresh(client, "no token")

    assert await log_of(client, admin) == before


async def test_reuse_of_a_refresh_token_shows_as_the_end_of_its_session(
    client: httpx.AsyncClient, user: dict[str, Any], admin: dict[str, str], settings: Settings
):
    settings.tokens.refresh_overlap = 0
    token = (await tokens_of(client))["refresh_token"]
    await refresh(client, token)
    await refresh(client, token)

    assert short(await log_of(client, admin))[-1] == ("session_ended", {"reason": "reused"})


@pytest.mark.parametrize("refused", ["INSERT ON audit_events", "DELETE ON user_sessions"])
async def test_row_and_change_are_there_together_or_not_at_all(
    client: httpx.AsyncClient,
    user: dict[str, Any],
    admin: dict[str, str],
    resources: Resources,
    settings: Settings,
    database_url: str,
    caplog: pytest.LogCaptureFixture,
    refused: str,
):
    """A login above the limit: its row is written before the oldest session is deleted."""
    settings.tokens.max_sessions = 1
    await tokens_of(client)
    before = await log_of(client, admin)
    refusal = next(value for name, value in REFUSALS.items() if database_url.startswith(name))
    caplog.set_level("INFO", "app.security")

    await execute(resources, f"CREATE TRIGGER refusal BEFORE {refused} {refusal}")
    try:
        failed = await log_in(client)
    finally:
        await execute(resources, "DROP TRIGGER refusal")
    async with resources["sessions"].current() as session:
        sessions = await session.scalar(select(func.count()).select_from(UserSession))

    assert failed.status_code == 500
    assert sessions == 2  # the first one, and the administrator's
    assert await log_of(client, admin) == before
    assert [record for record in caplog.records if record.name == "app.security"] == []


async def test_rows_of_a_deleted_account_stay_without_addresses(
    client: httpx.AsyncClient, user: dict[str, Any], admin: dict[str, str], resources: Resources
):
    await UserService(resources).set_role(EMAIL, Role.ADMIN)
    token = (await tokens_of(client))["access_token"]
    me = (await client.get("/v1/users/me", headers=admin)).json()
    path = f"/v1/users/{me['id']}"
    await client.patch(path, json={"disabled": True}, headers=bearing(token))
    await client.patch(path, json={"disabled": False}, headers=bearing(token))
    body = {"current_password": PASSWORD}
    await client.request("DELETE", "/v1/users/me", json=body, headers=bearing(token))
    await DeletionService(resources).delete_all(60)
    admin = await account_headers(Role.ADMIN, resources)
    rows = await log_of(client, admin, account_id=user["id"])
    as_actor = [each for each in await log_of(client, admin) if each["actor_id"] == user["id"]]

    assert rows[0]["event"] == "account_deleted"
    assert {each["client"] for each in [*rows, *as_actor]} == {None}
    assert any(each["account_id"] == me["id"] for each in as_actor)
    assert user["email"] not in str(rows)


async def add_rows(resources: Resources, count: int, created_at: datetime) -> None:
    rows = [
        {
            "event": "login",
            "account_id": number % 50,
            "client": "198.51.100.7",
            "details": {},
            "created_at": created_at + timedelta(seconds=number),
        }
        for number in range(count)
    ]
    async with resources["sessions"].write.begin() as session:
        await session.execute(insert(AuditEvent), rows)


async def test_old_rows_are_deleted(
    client: httpx.AsyncClient, admin: dict[str, str], resources: Resources, settings: Settings
):
    settings.audit.retention = 3600
    await add_rows(resources, BATCH + 1, now() - timedelta(days=2))
    await add_rows(resources, 2, now())
    await RetentionService(resources).clean()

    assert len(await log_of(client, admin)) == 2


async def test_log_is_searched_by_account_and_time(
    client: httpx.AsyncClient, admin: dict[str, str], resources: Resources
):
    start = now().replace(microsecond=0) - timedelta(hours=1)
    await add_rows(resources, 120, start)
    since = (start + timedelta(seconds=60)).isoformat()

    assert len(await log_of(client, admin, limit=50)) == 120
    assert len(await log_of(client, admin, since=since)) == 60
    assert [each["account_id"] for each in await log_of(client, admin, account_id=7)] == [7] * 3
    assert len(await log_of(client, admin, account_id=7, since=since)) == 1
    assert len(await log_of(client, admin, since="0001-01-01T00:00:00Z")) == 120
    assert await log_of(client, admin, since="9999-12-31T23:59:59Z") == []
    times = ["2026-03-01", "2026-03-01T09:00:00", "0", "1700000000", ""]
    times.append("0001-01-01T00:00:00+23:00")  # before the first year in UTC
    queries = [{"account_id": "0"}, *({"since": time} for time in times)]
    for query in queries:
        refused = await client.get(URL, params=query, headers=admin)
        assert refused.status_code == 422, query


@mariadb_only
async def test_log_is_found_by_an_index(
    client: httpx.AsyncClient, admin: dict[str, str], resources: Resources
):
    start = now() - timedelta(hours=5)
    await add_rows(resources, 6000, start)
    async with resources["sessions"].write() as session:
        await session.execute(text("ANALYZE TABLE audit_events"))
    since = (start + timedelta(minutes=90)).isoformat()
    queries: list[dict[str, Any]] = [{}, {"since": since}, {"account_id": 7}]
    queries.append({"account_id": 7, "since": since})

    read = {}
    for query in queries:
        first = await client.get(URL, params=query, headers=admin)
        after = {"after": first.json()["next"]} if first.json()["next"] else {}
        with recorded(resources["sessions"]) as statements:
            await client.get(URL, params=query | after, headers=admin)
        [page] = [each for each in statements if "FROM audit_events" in each.statement]
        async with resources["sessions"].current() as session:
            connection = await session.connection()
            plan = await connection.exec_driver_sql(f"ANALYZE {page.statement}", page.parameters)
            read[str(query)] = sum(float(step["r_rows"]) for step in plan.mappings())

    assert max(read.values()) <= 21, read


@pytest.mark.parametrize("role", [Role.READER, Role.EDITOR])
async def test_only_administrators_read_it(
    client: httpx.AsyncClient, resources: Resources, role: Role
):
    others = await client.get(URL, headers=await account_headers(role, resources))

    assert others.status_code == 403
    assert is_unauthorized(await client.get(URL), invalid=False)
