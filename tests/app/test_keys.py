"""API keys: made, used and revoked."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from fastapi.routing import APIRoute
from sqlalchemy import delete, insert, select, update

from app.main import create_app as create_service
from app.models import ApiKey, User
from app.schemas.accounts.key import KeyCreate, KeyScope
from app.schemas.user import Role
from app.services.accounts.keys import EXPIRED, UNKNOWN, KeyService
from app.services.accounts.users import UserService
from app.services.retention import KEEP_KEYS, RetentionService
from app.settings import Settings
from chassis.auth.api_keys import MALFORMED
from chassis.auth.credentials import AMBIGUOUS, NO_SESSION, NO_WRITE
from chassis.clock import now
from chassis.development.private_servers import embedded_valkey
from chassis.errors import Unauthorized
from chassis.http.routing import Route
from chassis.idempotency.model import IdempotencyRecord
from chassis.limits.settings import LimitsSettings
from chassis.redis.settings import RedisSettings
from chassis.resources import Resources, open_resources
from tests.accounts import account_headers
from tests.conftest import client_of
from tests.databases import sqlite_only
from tests.logins import EMAIL, PASSWORD, REGISTER, bearing, is_unauthorized, tokens_of
from tests.queries import recorded
from tests.service import create_app

PATH = "/v1/users/me/keys"
FORM = re.compile("bookshelf_key_[0-9A-Za-z]{71}")
SLOW = 1 / 3600  # one an hour: nothing comes back while a test runs

Make = Callable[..., Awaitable[dict[str, Any]]]


def by_key(key: str) -> dict[str, str]:
    return {"X-API-Key": key}


async def detail_of(response: httpx.Response) -> str:
    assert is_unauthorized(response)
    return str(response.json()["detail"])


@pytest.fixture
async def session(client: httpx.AsyncClient, user: dict[str, Any]) -> dict[str, str]:
    """The headers of the owner's login."""
    return bearing((await tokens_of(client))["access_token"])


@pytest.fixture
async def make(client: httpx.AsyncClient, session: dict[str, str]) -> Make:
    async def make(*scopes: str, **fields: Any) -> dict[str, Any]:
        body = {"name": "A machine", "scopes": scopes or ["read"], **fields}
        response = await client.post(PATH, json=body, headers=session)
        assert response.status_code == 201, response.text
        made: dict[str, Any] = response.json()
        return made

    return make


async def listed(client: httpx.AsyncClient, session: dict[str, str]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await client.get(PATH, headers=session)).json()["items"]
    return items


async def test_secret_is_shown_once_and_its_digest_stored(
    client: httpx.AsyncClient, session: dict[str, str], make: Make, resources: Resources
):
    made = await make("write", "read")
    key = made.pop("key")
    async with resources["sessions"].current() as reading:
        row = (await reading.execute(select(ApiKey.__table__))).one()

    assert FORM.fullmatch(key)
    assert key.startswith(made["start"])
    assert (made["name"], made["scopes"]) == ("A machine", ["read", "write"])
    assert (made["expires_at"], made["used_at"]) == (None, None)
    assert await listed(client, session) == [made]
    assert row.digest == sha256(key.encode()).hexdigest()
    # What both have in common is the id, which is no secret.
    assert key[len("bookshelf_key_") + 22 :] not in f"{row}"


async def test_key_is_taken_in_both_headers(
    client: httpx.AsyncClient, user: dict[str, Any], make: Make
):
    key = (await make())["key"]

    for headers in (
        by_key(key),
        by_key(f" {key} "),
        bearing(key),
        {"Authorization": f"bearer {key}"},
    ):
        response = await client.get("/v1/users/me", headers=headers)
        assert (response.status_code, response.json()) == (200, user)
        assert response.headers["Cache-Control"] == "private, no-store"


async def test_keys_of_a_disabled_account_are_refused_until_it_is_enabled(
    client: httpx.AsyncClient,
    user: dict[str, Any],
    make: Make,
    resources: Resources,
    settings: Settings,
):
    admin = await account_headers(Role.ADMIN, resources)
    key = by_key((await make())["key"])
    seen = []
    async with (
        open_resources(settings) as others,
        client_of(create_app(settings), others) as elsewhere,
    ):
        for disabled in (False, True, False):
            path, body = f"/v1/users/{user['id']}", {"disabled": disabled}
            await client.patch(path, json=body, headers=admin)
            seen.append((await elsewhere.get("/v1/users/me", headers=key)).status_code)

    assert seen == [200, 401, 200]


async def test_keys_end_with_their_account(
    client: httpx.AsyncClient, session: dict[str, str], make: Make, resources: Resources
):
    key = by_key((await make())["key"])
    await client.get("/v1/users/me", headers=key)
    body = {"current_password": PASSWORD}
    deleted = await client.request("DELETE", "/v1/users/me", json=body, headers=session)
    async with resources["sessions"].current() as reading:
        left = (await reading.execute(select(ApiKey.__table__))).all()

    assert deleted.status_code == 204
    assert is_unauthorized(await client.get("/v1/users/me", headers=key))
    assert left == []


async def test_key_sent_twice_or_beside_a_token_is_refused(
    client: httpx.AsyncClient, session: dict[str, str], make: Make
):
    """Whichever of them counted, somebody would be surprised."""
    key = (await make("write"))["key"]
    other = (await make())["key"]
    requests: list[tuple[list[tuple[str, str]], str]] = [
        ([*by_key(key).items(), *session.items()], AMBIGUOUS),
        ([*by_key(key).items(), *bearing(key).items()], AMBIGUOUS),
        ([*by_key(key).items(), *by_key(key).items()], "X-Api-Key was given more than once"),
        ([*by_key(key).items(), *by_key(other).items()], "X-Api-Key was given more than once"),
    ]

    for headers, reason in requests:
        for method, path in (("GET", "/v1/users/me"), ("POST", "/v1/payers")):
            response = await client.request(method, path, headers=headers)
            assert await detail_of(response) == reason
    twice = [*bearing(key).items(), *bearing(key).items()]
    assert is_unauthorized(await client.get("/v1/users/me", headers=twice))


async def requests_with(client: httpx.AsyncClient, key: str) -> dict[str, httpx.Response]:
    """One of each method, all of which an editor may send."""

    async def send(method: str, path: str, **options: Any) -> httpx.Response:
        return await client.request(method, path, headers=by_key(key), **options)

    created = await send("POST", "/v1/payers", json={"name": "Mary"})
    path = created.headers.get("Location", "/v1/payers/1")
    return {
        "POST": created,
        "GET": await send("GET", "/v1/users/me"),
        "HEAD": await send("HEAD", "/v1/users/me"),
        "PATCH": await send("PATCH", path, json={"name": "Percy"}),
        "DELETE": await send("DELETE", path),
    }


async def test_scopes_decide_on_methods(
    client: httpx.AsyncClient, user: dict[str, Any], make: Make, resources: Resources
):
    await UserService(resources).set_role(EMAIL, Role.EDITOR)
    reads, writes = (await make("read"))["key"], (await make("write"))["key"]

    refused = await requests_with(client, reads)
    allowed = await requests_with(client, writes)

    assert [*allowed] == ["POST", "GET", "HEAD", "PATCH", "DELETE"]
    assert [each.status_code for each in allowed.values()] == [201, 200, 200, 200, 204]
    assert [each.status_code for each in refused.values()] == [403, 200, 200, 403, 403]
    for method in ("POST", "PATCH", "DELETE"):
        assert refused[method].json()["detail"] == NO_WRITE
        scheme = 'Bearer error="insufficient_scope", scope="write"'
        assert refused[method].headers["WWW-Authenticate"] == scheme
    # Before the body is read, which is not looked at.
    broken = await client.post("/v1/payers", content=b"{", headers=by_key(reads))
    assert broken.status_code == 403


async def test_scopes_give_no_role_and_a_role_no_scope(
    client: httpx.AsyncClient, make: Make, resources: Resources
):
    """And a new role counts with the very next request."""
    reads, writes = (await make("read"))["key"], (await make("write"))["key"]
    statuses = []
    for role in (Role.READER, Role.EDITOR, Role.READER):
        await UserService(resources).set_role(EMAIL, role)
        statuses.append(
            [
                (
                    await client.post("/v1/payers", json={"name": role}, headers=by_key(key))
                ).status_code
                for key in (reads, writes)
            ]
        )

    assert statuses == [[403, 403], [403, 201], [403, 403]]


@pytest.mark.parametrize("scope", KeyScope)
async def test_key_does_not_manage_its_account(
    client: httpx.AsyncClient, session: dict[str, str], make: Make, scope: KeyScope
):
    made = await make(scope)
    change = {"current_password": PASSWORD, "password": "prometheus unbound"}
    requests: list[tuple[str, str, Any]] = [
        ("PATCH", "/v1/users/me", change),
        ("PATCH", "/v1/users/me", {"name": "Percy"}),
        ("DELETE", "/v1/tokens", None),
        ("GET", PATH, None),
        ("POST", PATH, {"name": "Another", "scopes": ["write"]}),
        ("DELETE", f"{PATH}/{made['id']}", None),
    ]
    for headers in (by_key(made["key"]), bearing(made["key"])):
        for method, path, body in requests:
            response = await client.request(method, path, json=body, headers=headers)
            assert (response.status_code, response.json()["detail"]) == (403, NO_SESSION)
            assert response.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope"'

    assert (await client.get("/v1/users/me", headers=session)).status_code == 200
    assert len(await listed(client, session)) == 1


def test_what_changes_an_account_needs_a_login(settings: Settings):
    """Whatever routes there will be."""
    routes = [route for route in create_service(settings).routes if isinstance(route, APIRoute)]
    of_account = [
        route
        for route in routes
        if isinstance(route, Route)
        and route.needs_token
        and route.path.startswith(("/v1/users", "/v1/tokens"))
        and (route.methods != {"GET"} or "/keys" in route.path or "/sessions" in route.path)
    ]

    assert len(of_account) >= 5
    assert [route.path for route in of_account if not route.needs_session] == []


async def test_mistyped_key_is_refused_without_looking_anything_up(
    client: httpx.AsyncClient, session: dict[str, str], make: Make, resources: Resources
):
    key = (await make())["key"]
    other = "b" if key[40] == "a" else "a"
    swapped = key[:40] + key[41] + key[40] + key[42:] if key[40] != key[41] else f"{key}x"
    wrong = [f"{key[:40]}{other}{key[41:]}", key[:-1], f"{key}0", key.upper(), swapped, ""]
    wrong += ["bookshelf_key_", f"bookshelf_key_{'0' * 71}", "x" * 5000, f"{key}\u00e9"]
    wrong += [f"another_{key}", session["Authorization"].partition(" ")[2]]

    with recorded(resources["sessions"]) as queries:
        for text in wrong:
            response = await client.get("/v1/users/me", headers={b"X-API-Key": text.encode()})
            assert await detail_of(response) == MALFORMED, text
            assert "cache" not in response.headers["Server-Timing"]
    assert queries == []
    assert await detail_of(await client.get("/v1/users/me", headers=bearing(wrong[0]))) == MALFORMED


async def test_unknown_and_revoked_keys_look_alike_and_leave_nothing_in_the_cache(
    client: httpx.AsyncClient,
    user: dict[str, Any],
    session: dict[str, str],
    make: Make,
    resources: Resources,
    settings: Settings,
):
    made = await make()
    keys = resources["api_keys"]
    known = int(made["id"])
    forged = [keys.make(user["id"], 7), keys.make(user["id"] + 1, known), keys.make(2**63 - 1, 1)]
    await client.delete(f"{PATH}/{made['id']}", headers=session)

    for key in [made["key"], *forged]:
        assert await detail_of(await client.get("/v1/users/me", headers=by_key(key))) == UNKNOWN
    stored = await resources["redis"].keys(f"{settings.cache.namespace}:entry:*:key:*")
    assert stored == []


async def test_guess_at_a_key_that_exists_costs_no_query(
    client: httpx.AsyncClient, user: dict[str, Any], make: Make, resources: Resources
):
    made = await make()
    assert (await client.get("/v1/users/me", headers=by_key(made["key"]))).status_code == 200
    guess = resources["api_keys"].make(user["id"], int(made["id"]))

    with recorded(resources["sessions"]) as queries:
        response = await client.get("/v1/users/me", headers=by_key(guess))

    assert await detail_of(response) == UNKNOWN
    assert queries == []
    assert (await client.get("/v1/users/me", headers=by_key(made["key"]))).status_code == 200


async def test_network_has_so_many_unknown_keys_and_a_known_one_goes_on(
    settings: Settings, make: Make, resources: Resources
):
    """Each costs a query; and one that is in use costs none."""
    key = (await make())["key"]
    settings.limits = LimitsSettings(reads_rate=SLOW, reads_burst=3)
    async with (
        open_resources(settings) as limited,
        client_of(create_app(settings), limited, "192.0.2.1") as client,
    ):

        async def status(key: str) -> int:
            return (await client.get("/v1/payers/1", headers=by_key(key))).status_code

        known = [await status(key) for _ in range(6)]
        with recorded(limited["sessions"]) as queries:
            unknown = [await status(limited["api_keys"].make(1, number)) for number in range(1, 6)]
        still = await status(key)

    assert known == [404] * 6
    assert unknown == [404] * 3 + [429] * 2
    assert sum("api_keys" in query.statement for query in queries) == 3
    assert still == 404


async def test_warm_key_is_authenticated_without_a_query(
    client: httpx.AsyncClient, make: Make, resources: Resources
):
    key = (await make())["key"]
    await client.get("/v1/users/me", headers=by_key(key))

    with recorded(resources["sessions"]) as queries:
        responses = [
            await client.get("/v1/users/me", headers=headers)
            for headers in (by_key(key), bearing(key))
        ]

    assert [response.status_code for response in responses] == [200, 200]
    assert queries == []


async def test_revoked_key_ends_at_once_on_every_worker(
    client: httpx.AsyncClient, settings: Settings, session: dict[str, str], make: Make
):
    """While it is used; and the owner's other key and session go on."""
    made, other = await make(), await make()
    async with (
        open_resources(settings) as more,
        client_of(create_app(settings), more) as elsewhere,
    ):
        before: list[int] = []
        revoked = asyncio.Event()

        async def use(worker: httpx.AsyncClient) -> None:
            while not revoked.is_set():
                response = await worker.get("/v1/users/me", headers=by_key(made["key"]))
                before.append(response.status_code)

        users = [asyncio.create_task(use(worker)) for worker in (client, elsewhere) * 2]
        while before.count(200) < 20:
            await asyncio.sleep(0)
        response = await client.delete(f"{PATH}/{made['id']}", headers=session)
        after = [
            await worker.get("/v1/users/me", headers=by_key(made["key"]))
            for worker in (elsewhere, client)
        ]
        revoked.set()
        await asyncio.gather(*users)
        still = [
            (await worker.get("/v1/users/me", headers=headers)).status_code
            for worker in (elsewhere, client)
            for headers in (by_key(other["key"]), session)
        ]

    assert response.status_code == 204
    assert set(before) <= {200, 401}
    assert [await detail_of(each) for each in after] == [UNKNOWN, UNKNOWN]
    assert still == [200] * 4
    assert [key["id"] for key in await listed(client, session)] == [other["id"]]


async def test_key_expires_at_its_time_although_it_is_cached(client: httpx.AsyncClient, make: Make):
    expires_at = now() + timedelta(seconds=1)
    key = (await make(expires_at=expires_at.isoformat()))["key"]
    last_allowed = first_refused = None
    while first_refused is None:
        start = now()
        response = await client.get("/v1/users/me", headers=by_key(key))
        if response.status_code == 200:
            assert start < expires_at
            last_allowed = start
        else:
            assert await detail_of(response) == EXPIRED
            first_refused = now()

    assert last_allowed is not None
    assert last_allowed < expires_at <= first_refused


async def test_use_is_written_after_the_response_and_seldom(
    client: httpx.AsyncClient, session: dict[str, str], make: Make, resources: Resources
):
    made = await make()
    start = now()

    async def use(**headers: str) -> httpx.Response:
        return await client.get("/v1/users/me", headers=by_key(made["key"]) | headers)

    async def used_at() -> datetime | None:
        [key] = await listed(client, session)
        return key["used_at"] and datetime.fromisoformat(key["used_at"])

    async def be_used_at(moment: datetime) -> None:
        async with resources["sessions"].write.begin() as writing:
            await writing.execute(update(ApiKey).values(used_at=moment))
        await resources["cache"].invalidate(f"key:{made['id']}")

    etag = (await use()).headers["ETag"]
    first = await used_at()
    with recorded(resources["sessions"]) as queries:
        for _ in range(5):
            await use()
        await resources["cache"].invalidate(f"key:{made['id']}")
        await use()
    assert first is not None
    assert first >= start
    assert await used_at() == first
    assert [query for query in queries if query.statement.startswith("UPDATE")] == []

    await be_used_at(start - timedelta(minutes=6))
    assert (await use(**{"If-None-Match": etag})).status_code == 304
    again = await used_at()
    assert again is not None
    assert again >= start


async def test_key_has_limits_of_its_own(settings: Settings, session: dict[str, str], make: Make):
    made = [await make("write") for _ in range(2)]
    settings.limits = LimitsSettings(
        key_reads_rate=SLOW, key_reads_burst=2, key_writes_rate=SLOW, key_writes_burst=1
    )
    async with (
        open_resources(settings) as limited,
        client_of(create_app(settings), limited) as client,
    ):

        async def reads(count: int, headers: dict[str, str]) -> list[httpx.Response]:
            return [await client.get("/v1/users/me", headers=headers) for _ in range(count)]

        responses = await reads(3, by_key(made[0]["key"]))
        in_the_other_header = await reads(1, bearing(made[0]["key"]))
        writes = [
            (await client.post("/v1/payers", json={}, headers=by_key(made[0]["key"]))).status_code
            for _ in range(2)
        ]
        others = [*await reads(3, session), *await reads(2, by_key(made[1]["key"]))]

    assert [response.status_code for response in responses] == [200, 200, 429]
    assert responses[0].headers["RateLimit-Policy"] == '"key_reads";q=2;w=7200'
    assert responses[-1].json()["detail"].startswith("Too many key reads")
    assert [response.status_code for response in in_the_other_header] == [429]
    assert writes == [403, 429]  # it has no role
    assert [response.status_code for response in others] == [200] * 5


async def test_keys_are_listed_in_pages_the_latest_first_and_only_to_their_owner(
    client: httpx.AsyncClient, session: dict[str, str], make: Make
):
    made = [await make(name=f"Machine {number}") for number in range(5)]
    other = REGISTER | {"email": "percy@example.com"}
    await client.post("/v1/users", json=other)
    others = bearing((await tokens_of(client, email=other["email"]))["access_token"])

    names: list[str] = []
    after: dict[str, Any] = {}
    while True:
        page = (await client.get(PATH, params={"limit": 2} | after, headers=session)).json()
        names += [key["name"] for key in page["items"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    not_theirs = await client.delete(f"{PATH}/{made[0]['id']}", headers=others)

    assert names == [key["name"] for key in reversed(made)]
    assert await listed(client, others) == []
    assert not_theirs.status_code == 404
    assert (await client.get("/v1/users/me", headers=by_key(made[0]["key"]))).status_code == 200
    for id, status in ((made[0]["id"], 204), (made[0]["id"], 404), ("0", 422), ("a", 422)):
        response = await client.delete(f"{PATH}/{id}", headers=session)
        assert response.status_code == status, response.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("name", name) for name in ("", "x" * 101, "a\nb", None)],
        *[("scopes", scopes) for scopes in ([], ["admin"], "read", ["read"] * 3, [1], None)],
        *[("expires_at", time) for time in ("2020-01-01T00:00:00Z", "2099-01-01T00:00:00", 1, "x")],
        *[(name, "x") for name in ("key", "digest", "user_id")],
    ],
)
async def test_nonsense_is_no_key(
    client: httpx.AsyncClient, session: dict[str, str], field: str, value: Any
):
    body = {"name": "A machine", "scopes": ["read"], field: value}

    response = await client.post(PATH, json=body, headers=session)

    assert response.status_code == 422
    assert response.json()["errors"][0]["loc"][:2] == ["body", field]


async def test_account_has_so_many_keys_also_when_they_are_made_at_once(
    client: httpx.AsyncClient, session: dict[str, str], make: Make, resources: Resources
):
    most = resources["settings"].keys.per_account
    body = {"name": "A machine", "scopes": ["read"]}

    responses = await asyncio.gather(
        *(client.post(PATH, json=body, headers=session) for _ in range(most + 5))
    )
    refused = await client.post(PATH, json=body, headers=session)
    oldest = (await client.get(PATH, params={"limit": 100}, headers=session)).json()["items"][-1]
    async with resources["sessions"].write.begin() as writing:
        this = update(ApiKey).where(ApiKey.id == int(oldest["id"]))
        await writing.execute(this.values(expires_at=now() - timedelta(seconds=1)))
    instead = await client.post(PATH, json=body, headers=session)

    assert sorted(response.status_code for response in responses) == [201] * most + [409] * 5
    assert refused.json()["detail"] == f"This account has {most} API keys already; revoke one first"
    assert instead.status_code == 201
    ids = [
        key["id"]
        for key in (await client.get(f"{PATH}?limit=100", headers=session)).json()["items"]
    ]
    assert len(ids) == most
    assert oldest["id"] not in ids


async def test_creation_that_is_repeated_makes_one_key_and_keeps_no_readable_secret(
    client: httpx.AsyncClient, session: dict[str, str], resources: Resources
):
    body = {"name": "A machine", "scopes": ["read"]}
    headers = session | {"Idempotency-Key": '"once"'}

    first, again = [await client.post(PATH, json=body, headers=headers) for _ in range(2)]
    async with resources["sessions"].current() as reading:
        [record] = (await reading.execute(select(IdempotencyRecord.__table__))).all()

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json() == first.json()
    assert first.json()["key"] not in f"{record}"
    assert len(await listed(client, session)) == 1
    await client.delete(f"{PATH}/{first.json()['id']}", headers=session)
    replayed = (await client.post(PATH, json=body, headers=headers)).json()["key"]
    assert await detail_of(await client.get("/v1/users/me", headers=by_key(replayed))) == UNKNOWN


async def test_session_that_has_ended_makes_no_key(
    client: httpx.AsyncClient, user: dict[str, Any], session: dict[str, str], resources: Resources
):
    """Although its account was read just before."""
    claims = resources["access_tokens"].read(session["Authorization"].partition(" ")[2])
    account = await UserService(resources).of_session(*claims)
    await client.delete("/v1/tokens", headers=session)

    body = KeyCreate(name="A machine", scopes=[KeyScope.READ])
    with pytest.raises(Unauthorized, match="The session has ended"):
        await KeyService(resources).create(account, body)


async def test_new_password_leaves_keys_and_a_deleted_account_none(
    client: httpx.AsyncClient,
    user: dict[str, Any],
    session: dict[str, str],
    make: Make,
    resources: Resources,
):
    key = (await make())["key"]
    change = {"current_password": PASSWORD, "password": "prometheus unbound"}
    changed = await client.patch("/v1/users/me", json=change, headers=session)
    kept = await client.get("/v1/users/me", headers=by_key(key))
    async with (
        resources["cache"].invalidating(f"user:{user['id']}"),
        resources["sessions"].write.begin() as writing,
    ):
        await writing.execute(delete(User).where(User.id == user["id"]))
    gone = await client.get("/v1/users/me", headers=by_key(key))
    async with resources["sessions"].current() as reading:
        rows = (await reading.execute(select(ApiKey.id))).all()

    assert (changed.status_code, kept.status_code) == (200, 200)
    assert await detail_of(gone) == UNKNOWN
    assert rows == []


async def test_cached_responses_are_for_others_and_a_key_sees_its_own_writes(
    client: httpx.AsyncClient, make: Make, resources: Resources
):
    await UserService(resources).set_role(EMAIL, Role.EDITOR)
    key = (await make("write"))["key"]
    unknown = resources["api_keys"].make(1, 1)
    body = {"name": "Mary"}
    path = (await client.post("/v1/payers", json=body, headers=by_key(key))).headers["Location"]
    states: list[tuple[str, str, str]] = []

    async def get(**headers: str) -> None:
        response = await client.get(path, headers=headers)
        control = response.headers["Cache-Control"]
        states.append((response.json()["name"], response.headers["X-Cache"], control))
        assert response.headers["Vary"] == "Authorization, X-API-Key"

    await get()
    await client.patch(path, json={"name": "Percy"}, headers=by_key(key))
    await get(**by_key(key))
    await get(**bearing(key))
    await get()
    # Credentials that are not valid are none: they are no way around the cache and its limits.
    await get(**by_key(unknown))
    await get(**by_key("x"), **bearing("y"))

    assert states == [
        ("Mary", "MISS", "public, no-cache"),
        ("Percy", "BYPASS", "private, no-store"),
        ("Percy", "BYPASS", "private, no-store"),
        ("Percy", "MISS", "public, no-cache"),
        ("Percy", "HIT", "public, no-cache"),
        ("Percy", "HIT", "public, no-cache"),
    ]


async def test_making_and_revoking_are_events(
    client: httpx.AsyncClient,
    user: dict[str, Any],
    session: dict[str, str],
    make: Make,
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level(logging.INFO, "app.security")
    made = await make()
    await client.delete(f"{PATH}/{made['id']}", headers=session)
    await client.delete(f"{PATH}/{made['id']}", headers=session)

    lines = [vars(record) for record in caplog.records if record.name == "app.security"]
    events = [line for line in lines if line["event"].startswith("key_")]
    assert [line["event"] for line in events] == ["key_created", "key_revoked"]
    for line in events:
        assert (line["account"], line["key"], line["client"]) == (
            user["id"],
            made["id"],
            "127.0.0.1",
        )
        assert line["session"]
        assert made["key"] not in f"{line}"


async def test_expired_keys_are_listed_for_a_while_and_then_deleted(
    client: httpx.AsyncClient,
    user: dict[str, Any],
    session: dict[str, str],
    make: Make,
    resources: Resources,
):
    never = await make()
    ends = {1: KEEP_KEYS + timedelta(hours=1), 2: KEEP_KEYS - timedelta(hours=1)}
    async with resources["sessions"].write.begin() as writing:
        for id, ago in ends.items():
            values = {
                "id": id,
                "user_id": user["id"],
                "name": "Old",
                "digest": "",
                "scopes": "read",
            }
            values |= {"created_at": now() - 2 * KEEP_KEYS, "expires_at": now() - ago}
            await writing.execute(insert(ApiKey).values(values))

    await RetentionService(resources).clean()

    assert [key["id"] for key in await listed(client, session)] == [never["id"], "2"]


@sqlite_only
async def test_key_works_without_redis_and_is_revoked_there_too(
    settings: Settings,
    client: httpx.AsyncClient,
    session: dict[str, str],
    make: Make,
    tmp_path: Path,
):
    made = await make("write")
    with embedded_valkey(tmp_path / "valkey") as valkey:
        settings.redis = RedisSettings(url=valkey.url)
        settings.limits = LimitsSettings()
        async with (
            open_resources(settings) as alone,
            client_of(create_app(settings), alone) as worker,
        ):
            warm = await worker.get("/v1/users/me", headers=by_key(made["key"]))
            assert valkey.process is not None
            valkey.process.kill()
            valkey.process.wait()
            during = [
                (await worker.get("/v1/users/me", headers=by_key(made["key"]))).status_code
                for _ in range(5)
            ]
            revoked = await worker.delete(f"{PATH}/{made['id']}", headers=session)
            after = await worker.get("/v1/users/me", headers=by_key(made["key"]))

    assert (warm.status_code, during, revoked.status_code) == (200, [200] * 5, 204)
    assert await detail_of(after) == UNKNOWN


async def test_document_offers_a_key_where_one_may_be_used(client: httpx.AsyncClient):
    document = (await client.get("/openapi.json")).json()
    both: list[dict[str, list[str]]] = [{"OAuth2PasswordBearer": []}, {"APIKey": []}]
    places = [("/v1/users/me", "get"), ("/v1/payers", "post"), ("/v1/payers/{payer_id}", "delete")]

    schemes = document["components"]["securitySchemes"]
    assert (schemes["APIKey"]["in"], schemes["APIKey"]["name"]) == ("header", "X-API-Key")
    for path, method in places:
        assert document["paths"][path][method]["security"] == both
    for path, method in ((PATH, "post"), ("/v1/users/me", "patch"), ("/v1/tokens", "delete")):
        assert document["paths"][path][method]["security"] == both[:1]
