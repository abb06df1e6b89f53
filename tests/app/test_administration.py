"""Accounts as administrators see them: roles, and who may log in."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import jwt
import pytest
from sqlalchemy import insert, select, text, update

from app.main import create_app
from app.models import User
from app.schemas.user import Role
from app.settings import Settings
from chassis.resources import Resources, open_resources
from tests.accounts import account_headers
from tests.command import run
from tests.conftest import client_of
from tests.databases import mariadb_only, sqlite_only
from tests.logins import (
    EMAIL,
    PASSWORD,
    bearing,
    is_unauthorized,
    log_in,
    me,
    refresh,
    tokens_of,
)
from tests.queries import recorded

URL = "/v1/users"


class Admin:
    """An administrator, and his client."""

    def __init__(self, client: httpx.AsyncClient, headers: dict[str, str]) -> None:
        self.client, self.headers = client, headers
        claims = jwt.decode(headers["Authorization"][7:], options={"verify_signature": False})
        self.id = int(claims["sub"])

    async def get(self, path: str = "", **query: Any) -> httpx.Response:
        return await self.client.get(f"{URL}{path}", params=query, headers=self.headers)

    async def change(self, user_id: int, tag: str | None = None, **body: Any) -> httpx.Response:
        headers = self.headers | ({} if tag is None else {"If-Match": tag})
        return await self.client.patch(f"{URL}/{user_id}", json=body, headers=headers)


NewAdmin = Callable[[], Awaitable[Admin]]


@pytest.fixture
def new_admin(client: httpx.AsyncClient, resources: Resources) -> NewAdmin:
    async def make() -> Admin:
        return Admin(client, await account_headers(Role.ADMIN, resources))

    return make


@pytest.fixture
async def admin(new_admin: NewAdmin) -> Admin:
    return await new_admin()


@pytest.mark.parametrize("role", [Role.READER, Role.EDITOR])
async def test_others_may_neither_see_nor_change_accounts(
    client: httpx.AsyncClient, resources: Resources, user: dict[str, Any], role: Role
):
    other = Admin(client, await account_headers(role, resources))
    responses = [
        await other.get(),
        await other.get(f"/{user['id']}"),
        await other.get("/987654321"),
        await other.change(user["id"], role="admin"),
        await other.change(other.id, role="admin"),
        await other.change(987654321, disabled=True),
    ]
    anonymous = [await client.get(URL), await client.patch(f"{URL}/{user['id']}", json={})]

    assert [response.status_code for response in responses] == [403] * 6
    assert [is_unauthorized(response, invalid=False) for response in anonymous] == [True] * 2


async def test_account_that_does_not_exist(admin: Admin):
    for response in (await admin.get("/987654321"), await admin.change(987654321, role="reader")):
        assert response.status_code == 404


async def test_new_role_takes_effect_at_once_on_every_worker(
    client: httpx.AsyncClient, user: dict[str, Any], admin: Admin, settings: Settings
):
    token = (await tokens_of(client))["access_token"]
    shown = await admin.get(f"/{user['id']}")
    async with (
        open_resources(settings) as resources,
        client_of(create_app(settings), resources) as elsewhere,
    ):
        before = await elsewhere.get(URL, headers=bearing(token))
        changed = await admin.change(user["id"], role="admin")
        after = await elsewhere.get(URL, headers=bearing(token))

    assert shown.json() == {**user, "disabled_at": None}
    assert changed.json() == {**shown.json(), "role": "admin"}
    assert changed.headers["ETag"] == (await admin.get(f"/{user['id']}")).headers["ETag"]
    assert (before.status_code, after.status_code) == (403, 200)


async def test_disabling_ends_sessions_at_once_and_enabling_allows_logins(
    client: httpx.AsyncClient, user: dict[str, Any], admin: Admin, settings: Settings
):
    sessions = [await tokens_of(client) for _ in range(2)]
    async with (
        open_resources(settings) as resources,
        client_of(create_app(settings), resources) as elsewhere,
    ):
        before = [await me(elsewhere, tokens["access_token"]) for tokens in sessions]
        disabled = await admin.change(user["id"], disabled=True)
        after = [await me(elsewhere, tokens["access_token"]) for tokens in sessions]
        refreshed = [await refresh(elsewhere, tokens["refresh_token"]) for tokens in sessions]
    refused = await log_in(client)
    enabled = await admin.change(user["id"], disabled=False)
    old = await me(client, sessions[0]["access_token"])
    again = await log_in(client)

    assert [response.status_code for response in before] == [200, 200]
    assert disabled.json()["disabled_at"] is not None
    assert all(map(is_unauthorized, [*after, old]))
    assert all(is_unauthorized(response, invalid=False) for response in refreshed)
    assert refused.status_code == 403
    assert "disabled" in refused.json()["detail"]
    assert enabled.json()["disabled_at"] is None
    assert again.status_code == 200


async def test_only_who_knows_the_password_is_told_that_it_is_disabled(
    client: httpx.AsyncClient, user: dict[str, Any], admin: Admin
):
    await admin.change(user["id"], disabled=True)
    wrong = await log_in(client, "a guess")
    unknown = await log_in(client, "a guess", "nobody@example.com")

    assert is_unauthorized(wrong, invalid=False)
    assert wrong.json() | {"request_id": ""} == unknown.json() | {"request_id": ""}


async def test_recorded_login_is_not_replayed_to_a_disabled_account(
    client: httpx.AsyncClient, user: dict[str, Any], admin: Admin
):
    form = {"grant_type": "password", "username": EMAIL, "password": PASSWORD}
    key = {"Idempotency-Key": "a key"}
    first = await client.post("/v1/tokens", data=form, headers=key)
    await admin.change(user["id"], disabled=True)
    second = await client.post("/v1/tokens", data=form, headers=key)

    assert (first.status_code, second.status_code) == (200, 403)


async def test_logins_and_refreshes_while_it_is_disabled_leave_no_session(
    client: httpx.AsyncClient, user: dict[str, Any], admin: Admin
):
    for _ in range(4):
        sessions = [await tokens_of(client) for _ in range(3)]
        disabled, *responses = await asyncio.gather(
            admin.change(user["id"], disabled=True),
            *(log_in(client) for _ in range(4)),
            *(refresh(client, tokens["refresh_token"]) for tokens in sessions),
        )
        given = [each.json() for each in responses if each.status_code == 200]

        assert disabled.status_code == 200
        assert {each.status_code for each in responses} <= {200, 401, 403}
        for tokens in [*sessions, *given]:
            assert is_unauthorized(await me(client, tokens["access_token"]))
            assert (await refresh(client, tokens["refresh_token"])).status_code == 401
        await admin.change(user["id"], disabled=False)


@pytest.mark.parametrize("change", [{"role": "editor"}, {"disabled": True}])
async def test_change_invalidates_what_is_cached_of_the_account(
    user: dict[str, Any], admin: Admin, resources: Resources, change: dict[str, Any]
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

    before = [await cached(), await cached()]
    await admin.change(user["id"], **change)

    assert (before, await cached()) == ([1, 1], 2)


@pytest.mark.parametrize("change", [{"role": "editor"}, {"disabled": True}])
async def test_last_administrator_stays_one(
    admin: Admin, new_admin: NewAdmin, change: dict[str, Any]
):
    other = await new_admin()
    await admin.change(other.id, disabled=True)
    refused = await admin.change(admin.id, **change)
    await admin.change(other.id, disabled=False)
    done = await admin.change(admin.id, **change)

    assert refused.status_code == 409
    assert "last administrator" in refused.json()["detail"]
    assert done.status_code == 200


async def test_last_administrator_may_change_what_takes_no_rights(
    admin: Admin, user: dict[str, Any]
):
    changes: list[dict[str, Any]] = [{"role": "admin"}, {"disabled": False}, {}]
    own = [await admin.change(admin.id, **change) for change in changes]
    others = [await admin.change(user["id"], disabled=each) for each in (True, False)]

    assert {response.status_code for response in [*own, *others]} == {200}


async def test_administrators_who_demote_each_other_at_once_leave_one(
    new_admin: NewAdmin, resources: Resources
):
    admins = [await new_admin() for _ in range(4)]
    changes: list[dict[str, Any]] = [{"role": "reader"}, {"disabled": True}]
    responses = await asyncio.gather(
        *(
            admin.change(other.id, **changes[(place + admin.id) % 2])
            for admin in admins
            for place, other in enumerate(admins)
        )
    )
    async with resources["sessions"].current() as session:
        is_left = (User.role == Role.ADMIN) & User.disabled_at.is_(None)
        left = (await session.scalars(select(User.id).where(is_left))).all()

    assert {response.status_code for response in responses} <= {200, 401, 403, 409}
    assert len(left) == 1


async def test_of_changes_that_saw_the_same_the_first_is_made(user: dict[str, Any], admin: Admin):
    tag = (await admin.get(f"/{user['id']}")).headers["ETag"]
    responses = await asyncio.gather(
        *(admin.change(user["id"], tag, role=role) for role in ("editor", "admin"))
    )

    assert sorted(response.status_code for response in responses) == [200, 412]


async def test_change_that_changes_nothing_keeps_the_time(user: dict[str, Any], admin: Admin):
    first = await admin.change(user["id"], disabled=True)
    second = await admin.change(user["id"], disabled=True, role="reader")

    assert second.json() == first.json()


@pytest.mark.parametrize(
    "body", [{"role": "owner"}, {"role": None}, {"disabled": None}, {"disabled": 1}, {"name": "A"}]
)
async def test_change_that_is_none_is_refused(
    user: dict[str, Any], admin: Admin, body: dict[str, Any]
):
    assert (await admin.change(user["id"], **body)).status_code == 422


async def add_accounts(resources: Resources, count: int) -> None:
    rows = [
        {
            "email": f"{name}{number:05}@example.com",
            "name": "Somebody",
            "password_hash": "",
            "role": "editor" if number % 5 == 0 else "reader",
        }
        for number in range(count)
        for name in ("b", "b%_", "\u00e9mile", "z")
    ]
    async with resources["sessions"].write.begin() as session:
        await session.execute(insert(User), rows)


async def emails(admin: Admin, **query: Any) -> list[str]:
    """Of all pages, each of three."""
    found: list[str] = []
    after: dict[str, Any] = {}
    while True:
        response = await admin.get(limit=3, **query, **after)
        assert response.status_code == 200, response.text
        found += [item["email"] for item in response.json()["items"]]
        if (cursor := response.json()["next"]) is None:
            return found
        after = {"after": cursor}


async def test_accounts_are_paged_by_address_and_found_by_its_beginning(
    admin: Admin, resources: Resources
):
    await add_accounts(resources, 5)
    async with resources["sessions"].current() as session:
        everybody = sorted(await session.scalars(select(User.email)))

    assert await emails(admin) == everybody
    for prefix, start in [
        ("b", "b"),
        ("B%", "b%_"),
        ("\u00c9MILE", "\u00e9mile"),
        ("e\u0301mile0000", "\u00e9mile0000"),
        ("z00002@example.com", "z00002@example.com"),
        ("nobody", "nobody"),
    ]:
        expected = [email for email in everybody if email.startswith(start)]
        assert await emails(admin, email_prefix=prefix) == expected


async def test_accounts_are_found_by_role_and_by_whether_they_are_disabled(
    admin: Admin, user: dict[str, Any], resources: Resources
):
    await add_accounts(resources, 5)
    await admin.change(user["id"], disabled=True)
    everybody = await emails(admin)
    editors = await emails(admin, role="editor")

    assert await emails(admin, disabled="true") == [EMAIL]
    assert await emails(admin, disabled="false") == [each for each in everybody if each != EMAIL]
    assert len(editors) == 4
    assert await emails(admin, role="editor", email_prefix="z") == ["z00000@example.com"]
    for query in ({"role": "owner"}, {"disabled": "perhaps"}, {"after": "x"}, {"q": "mary"}):
        assert (await admin.get(**query)).status_code == 422


@mariadb_only
async def test_list_of_accounts_is_found_by_an_index(admin: Admin, resources: Resources):
    await add_accounts(resources, 1500)
    async with resources["sessions"].write() as session:
        few = User.email.like("z0000%")
        await session.execute(update(User).where(few).values(disabled_at=User.created_at))
        await session.commit()
        await session.execute(text("ANALYZE TABLE users"))
    queries: list[dict[str, Any]] = [
        {},
        {"email_prefix": "z"},
        {"role": "editor"},
        {"role": "editor", "email_prefix": "z"},
        {"disabled": "true"},
        {"disabled": "false"},
    ]

    read = {}
    for query in queries:
        first = await admin.get(**query)
        after = {"after": first.json()["next"]} if first.json()["next"] else {}
        with recorded(resources["sessions"]) as statements:
            await admin.get(**query, **after)
        [page] = [each for each in statements if "ORDER BY users.email" in each.statement]
        async with resources["sessions"].current() as session:
            connection = await session.connection()
            plan = await connection.exec_driver_sql(f"ANALYZE {page.statement}", page.parameters)
            read[str(query)] = sum(float(step["r_rows"]) for step in plan.mappings())

    assert max(read.values()) <= 30, read


@sqlite_only
async def test_operator_sets_a_password_disables_and_enables(
    client: httpx.AsyncClient,
    user: dict[str, Any],
    environment: dict[str, Any],
    settings: Settings,
    admin: Admin,
    tmp_path: Path,
):
    variables = environment | {"CACHE_NAMESPACE": settings.cache.namespace}

    def command(*arguments: str, text: str = "") -> tuple[int, str, str]:
        return run(tmp_path, *arguments, text=text, **variables)

    token = (await tokens_of(client))["access_token"]
    await me(client, token)  # now it is cached
    weak = command("set-password", EMAIL, text="short\n")
    unusable = command("set-password", EMAIL, text="a\tpassword with a tab\n")
    kept = await me(client, token)
    done = command("set-password", "Mary@Example.com", text=" prometheus unbound\n")
    ended = await me(client, token)
    old, new = await log_in(client), await log_in(client, " prometheus unbound")
    disabled = command("disable-user", EMAIL)
    refused = await log_in(client, " prometheus unbound")
    enabled = command("enable-user", EMAIL)
    again = await log_in(client, " prometheus unbound")
    own = (await me(client, admin.headers["Authorization"][7:])).json()["email"]
    last = command("disable-user", own)
    shown = command("audit", "--account", EMAIL, "--since", "2020-01-01")
    by_id = command("audit", "--account", str(user["id"]), "--limit", "1")

    assert (weak[0], weak[2]) == (1, "password: String should have at least 12 characters\n")
    assert (unusable[0], unusable[2]) == (1, "password: Contains a control character\n")
    assert (kept.status_code, done[0]) == (200, 0)
    assert is_unauthorized(ended)
    assert (old.status_code, new.status_code) == (401, 200)
    assert (disabled[0], disabled[1].splitlines()[-1]) == (0, f"{EMAIL}: disabled")
    assert (refused.status_code, enabled[0], again.status_code) == (403, 0, 200)
    assert (last[0], "last administrator" in last[2]) == (1, True)
    assert PASSWORD not in shown[1]
    rows = [line for line in shown[1].splitlines() if "command" in line]
    assert [line.split("\u2502")[2].strip() for line in rows] == [
        "account_enabled",
        *("session_ended", "account_disabled"),
        *("session_ended", "password_changed"),
    ]
    assert by_id[1].count("login") == 1


@pytest.mark.parametrize("path", ["/verify", "/password-reset"])
async def test_paths_of_others_are_not_taken_for_accounts(admin: Admin, path: str):
    responses = [await admin.get(path), await admin.client.options(f"{URL}{path}")]

    assert [response.status_code for response in responses] == [405, 405]
    assert [response.headers["Allow"] for response in responses] == ["POST", "POST"]
