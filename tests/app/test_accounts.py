"""Accounts, logins and the tokens that come of them."""

import asyncio
import hmac
import json
import os
import sys
import threading
import time
from datetime import timedelta
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2 as httpx
import jwt
import pytest
from jwt.utils import base64url_encode
from sqlalchemy import delete, select, update

from app.about import NAME
from app.main import create_app
from app.models import RefreshToken, User, UserSession
from app.schemas.user import Role
from app.services.accounts.users import UserService
from app.services.retention import RetentionService
from app.settings import Settings
from chassis.auth.access_tokens import ALGORITHM, LEEWAY, AccessTokens, Claims
from chassis.auth.passwords import Passwords
from chassis.auth.settings import PasswordSettings, TokenSettings
from chassis.clock import now
from chassis.resources import Resources, open_resources
from tests.accounts import KEY, add_account
from tests.command import run
from tests.conftest import client_of
from tests.databases import sqlite_only
from tests.logins import (
    EMAIL,
    PASSWORD,
    REGISTER,
    bearing,
    is_unauthorized,
    log_in,
    me,
    refresh,
    tokens_of,
)
from tests.shop import Shop


async def test_registered_user_is_a_reader_and_no_password_is_shown(user: dict[str, Any]):
    assert user["role"] == "reader"
    assert user["email"] == EMAIL
    assert user.keys() == {"id", "email", "name", "role", "totp", "created_at"}


async def test_password_is_kept_as_argon2id(user: dict[str, Any], resources: Resources):
    async with resources["sessions"].read() as session:
        hash = await session.scalar(select(User.password_hash))

    assert hash is not None
    assert hash.startswith("$argon2id$v=19$m=8,t=1,p=1$")


async def test_address_is_taken_once_however_it_is_written(
    client: httpx.AsyncClient, user: dict[str, Any]
):
    again = await client.post("/v1/users", json=REGISTER | {"email": "Mary@Example.com"})

    assert again.status_code == 409


async def test_fifty_who_want_the_same_address_at_once_get_one_account(
    client: httpx.AsyncClient, resources: Resources
):
    responses = await asyncio.gather(*(client.post("/v1/users", json=REGISTER) for _ in range(50)))
    async with resources["sessions"].read() as session:
        emails = (await session.scalars(select(User.email))).all()

    statuses = sorted(response.status_code for response in responses)
    assert statuses == [201, *[409] * 49]
    assert emails == [EMAIL]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("email", email) for email in ("mary", "mary@", "@example.com", "a@b@c.com", "")],
        *[("password", password) for password in ("short", "x" * 1025, 12345678)],
        *[("name", name) for name in ("", "x" * 101, "a\nb")],
        ("role", "admin"),
    ],
)
async def test_nonsense_is_no_account(client: httpx.AsyncClient, field: str, value: Any):
    response = await client.post("/v1/users", json=REGISTER | {field: value})

    assert response.status_code == 422
    assert response.json()["errors"][0]["loc"] == ["body", field]
    assert PASSWORD not in response.text


async def test_login_gives_tokens_that_say_who_asks(
    client: httpx.AsyncClient, user: dict[str, Any]
):
    response = await log_in(client, email="MARY@example.com")
    tokens = response.json()

    assert response.headers["Cache-Control"] == "private, no-store"
    assert tokens.keys() == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert (tokens["token_type"], tokens["expires_in"]) == ("bearer", 900)
    assert (await me(client, tokens["access_token"])).json() == user


@pytest.mark.parametrize(
    ("email", "password"), [(EMAIL, "wrong"), ("nobody@example.com", "x"), ("no address", "x")]
)
async def test_wrong_password_and_unknown_account_look_alike(
    client: httpx.AsyncClient, user: dict[str, Any], email: str, password: str
):
    response = await log_in(client, password, email)

    assert is_unauthorized(response, invalid=False)
    assert response.json()["detail"] == "The e-mail address or the password is wrong"


@pytest.mark.parametrize("email", ["nobody@example.com", "no address"])
async def test_unknown_account_costs_a_hash_too(
    client: httpx.AsyncClient, resources: Resources, monkeypatch: pytest.MonkeyPatch, email: str
):
    hashed = []
    verify = resources["passwords"]._hash.verify

    def counting(password: str, hash: str) -> Any:
        hashed.append(hash.split("$")[3])
        return verify(password, hash)

    monkeypatch.setattr(resources["passwords"]._hash, "verify", counting)
    await log_in(client, email=email)

    assert hashed == ["m=8,t=1,p=1"]


async def test_login_makes_the_hash_costlier_when_that_has_grown(
    settings: Settings, user: dict[str, Any], resources: Resources
):
    settings.passwords = PasswordSettings(time_cost=2, memory_cost=16)
    async with open_resources(settings) as newer, client_of(create_app(settings), newer) as client:
        first, second = [await log_in(client) for _ in range(2)]
        async with newer["sessions"].read() as session:
            hash = await session.scalar(select(User.password_hash))

    assert (first.status_code, second.status_code) == (200, 200)
    assert hash is not None
    assert "m=16,t=2" in hash


async def test_logins_at_once_all_succeed_though_one_makes_the_hash_anew(
    settings: Settings, user: dict[str, Any], resources: Resources
):
    settings.passwords = PasswordSettings(time_cost=2, memory_cost=16)
    async with open_resources(settings) as newer, client_of(create_app(settings), newer) as client:
        responses = await asyncio.gather(*(log_in(client) for _ in range(10)))

    assert [response.status_code for response in responses] == [200] * 10


async def test_hash_that_another_login_made_anew_is_left_alone(
    settings: Settings, user: dict[str, Any], resources: Resources
):
    settings.passwords = PasswordSettings(time_cost=2, memory_cost=16)
    hashes = []
    async with open_resources(settings) as newer:
        for _ in range(2):
            await UserService(newer).rehash(EMAIL, PASSWORD)
            async with newer["sessions"].read() as session:
                hashes.append(await session.scalar(select(User.password_hash)))

    assert hashes[0] == hashes[1]
    assert "m=16,t=2" in str(hashes[0])


async def test_refresh_goes_on_with_new_tokens(client: httpx.AsyncClient, user: dict[str, Any]):
    first = await tokens_of(client)
    second = (await refresh(client, first["refresh_token"])).json()
    third = await refresh(client, second["refresh_token"])

    assert third.status_code == 200
    assert len({first["refresh_token"], second["refresh_token"]}) == 2
    assert (await me(client, third.json()["access_token"])).status_code == 200


async def as_if_passed(resources: Resources, seconds: float) -> None:
    """As if refresh tokens had been used that much longer ago."""
    async with resources["sessions"].write.begin() as session:
        used = select(RefreshToken).where(RefreshToken.used_at.is_not(None))
        for token in await session.scalars(used):
            assert token.used_at is not None
            token.used_at -= timedelta(seconds=seconds)


async def test_refresh_token_that_is_used_again_ends_its_session_and_no_other(
    client: httpx.AsyncClient, user: dict[str, Any], resources: Resources
):
    stolen, other = await tokens_of(client), await tokens_of(client)
    await me(client, stolen["access_token"])  # now the session is cached
    owners = (await refresh(client, stolen["refresh_token"])).json()
    await as_if_passed(resources, TokenSettings().refresh_overlap)
    thiefs = await refresh(client, stolen["refresh_token"])

    assert is_unauthorized(thiefs, invalid=False)
    assert is_unauthorized(await refresh(client, owners["refresh_token"]), invalid=False)
    for token in (stolen["access_token"], owners["access_token"]):
        assert is_unauthorized(await me(client, token))
    assert (await me(client, other["access_token"])).status_code == 200


async def test_tabs_that_refresh_at_once_all_go_on_in_the_same_session(
    client: httpx.AsyncClient, user: dict[str, Any], resources: Resources
):
    token = (await tokens_of(client))["refresh_token"]
    responses = await asyncio.gather(*(refresh(client, token) for _ in range(10)))
    assert [response.status_code for response in responses] == [200] * 10
    await as_if_passed(resources, TokenSettings().refresh_overlap - 5)
    responses.append(await refresh(client, token))

    tabs = [response.json() for response in responses]
    assert len({tab["refresh_token"] for tab in tabs}) == 11
    for tab in tabs:
        assert (await me(client, tab["access_token"])).status_code == 200
        assert (await refresh(client, tab["refresh_token"])).status_code == 200
    assert await session_count(resources) == 1
    await as_if_passed(resources, 5)  # that of the first use counts, not of the last
    assert is_unauthorized(await refresh(client, token), invalid=False)
    assert await session_count(resources) == 0


async def session_count(resources: Resources) -> int:
    async with resources["sessions"].read() as session:
        return len((await session.scalars(select(UserSession.id))).all())


async def test_without_an_overlap_one_of_many_refreshes_counts_at_most(
    client: httpx.AsyncClient, user: dict[str, Any], resources: Resources, settings: Settings
):
    settings.tokens.refresh_overlap = 0
    token = (await tokens_of(client))["refresh_token"]
    responses = await asyncio.gather(*(refresh(client, token) for _ in range(10)))

    statuses = [response.status_code for response in responses]
    assert statuses.count(200) <= 1
    assert set(statuses) <= {200, 401, 503}  # a machine that is busy sheds some
    assert await session_count(resources) == 0
    token = (await tokens_of(client))["refresh_token"]
    await refresh(client, token)
    await as_if_passed(resources, -5)  # by the clock of another host
    assert is_unauthorized(await refresh(client, token), invalid=False)


async def test_after_a_logout_no_refresh_works_be_it_in_the_overlap_or_a_replay(
    client: httpx.AsyncClient, user: dict[str, Any]
):
    first = await tokens_of(client)
    body = {"refresh_token": first["refresh_token"]}
    keyed = {"Idempotency-Key": "one"}
    second = await client.post("/v1/tokens/refresh", json=body, headers=keyed)
    replayed = await client.post("/v1/tokens/refresh", json=body, headers=keyed)
    assert second.json() == replayed.json()
    await client.delete("/v1/tokens", headers=bearing(second.json()["access_token"]))

    for headers in ({}, keyed):
        again = await client.post("/v1/tokens/refresh", json=body, headers=headers)
        assert is_unauthorized(again, invalid=False)
    again = await refresh(client, second.json()["refresh_token"])
    assert is_unauthorized(again, invalid=False)


async def test_refreshes_and_logouts_at_once_neither_deadlock_nor_leave_a_session(
    client: httpx.AsyncClient, user: dict[str, Any], resources: Resources
):
    """Also against the cleaning of tokens that have expired, which has many at a time."""
    logins = [await tokens_of(client) for _ in range(20)]
    old = [await tokens_of(client) for _ in range(20)]
    digests = [sha256(login["refresh_token"].encode()).hexdigest() for login in old]
    async with resources["sessions"].write.begin() as session:
        expired = update(RefreshToken).where(RefreshToken.digest.in_(digests))
        await session.execute(expired.values(expires_at=now() - timedelta(hours=1)))

    refreshes: list[httpx.Response] = []
    logouts: list[httpx.Response] = []
    few = asyncio.Semaphore(12)  # so that none is refused because of the load

    async def use(login: dict[str, Any]) -> None:
        async with few, asyncio.TaskGroup() as group:
            headers = bearing(login["access_token"])
            tasks = [group.create_task(refresh(client, login["refresh_token"])) for _ in range(2)]
            logout = group.create_task(client.delete("/v1/tokens", headers=headers))
        refreshes.extend(task.result() for task in tasks)
        logouts.append(logout.result())

    async with asyncio.TaskGroup() as group:
        for pair in zip(logins, old, strict=True):
            for login in pair:
                group.create_task(use(login))
        group.create_task(RetentionService(resources).clean())

    assert {response.status_code for response in refreshes} <= {200, 401}, [
        a.text for a in refreshes
    ]
    # 401 where a refresh that came too late, or the cleaning, has ended the session already.
    assert {response.status_code for response in logouts} <= {204, 401}
    assert await session_count(resources) == 0
    for tokens in [response.json() for response in refreshes if response.is_success]:
        assert is_unauthorized(await refresh(client, tokens["refresh_token"]), invalid=False)
        assert is_unauthorized(await me(client, tokens["access_token"]))


async def test_session_ends_when_nobody_refreshes_it(
    client: httpx.AsyncClient, user: dict[str, Any], resources: Resources
):
    tokens = await tokens_of(client)
    async with resources["sessions"].write.begin() as session:
        await session.execute(update(RefreshToken).values(expires_at=now()))

    assert is_unauthorized(await refresh(client, tokens["refresh_token"]), invalid=False)


async def test_session_has_a_last_day_however_often_it_is_refreshed(
    client: httpx.AsyncClient, user: dict[str, Any], resources: Resources, settings: Settings
):
    """Replays go no further, and what is past that day is deleted with all its tokens or none."""
    tokens = await tokens_of(client)
    body, keyed = {"refresh_token": tokens["refresh_token"]}, {"Idempotency-Key": "one"}
    last = timedelta(seconds=settings.tokens.session_ttl)

    async def refresh_at(age: timedelta) -> httpx.Response:
        async with resources["sessions"].write.begin() as session:
            await session.execute(update(UserSession).values(created_at=now() - age))
        return await client.post("/v1/tokens/refresh", json=body, headers=keyed)

    assert (await refresh_at(last - timedelta(minutes=1))).status_code == 200
    assert is_unauthorized(await refresh_at(last + timedelta(minutes=1)), invalid=False)
    assert await session_count(resources) == 0


async def test_sessions_past_their_last_day_are_deleted(
    client: httpx.AsyncClient, user: dict[str, Any], resources: Resources, settings: Settings
):
    """With tokens or without any, as a change of the password leaves it."""
    old = [await tokens_of(client) for _ in range(2)]
    past = now() - timedelta(seconds=settings.tokens.session_ttl + 60)
    async with resources["sessions"].write.begin() as session:
        await session.execute(update(UserSession).values(created_at=past))
        digest = sha256(old[0]["refresh_token"].encode()).hexdigest()
        await session.execute(delete(RefreshToken).where(RefreshToken.digest == digest))
    recent = await tokens_of(client)
    await RetentionService(resources).clean()

    assert await session_count(resources) == 1
    assert (await refresh(client, recent["refresh_token"])).status_code == 200


async def test_logout_ends_both_tokens_at_once(client: httpx.AsyncClient, user: dict[str, Any]):
    tokens, other = await tokens_of(client), await tokens_of(client)
    await me(client, tokens["access_token"])
    gone = await client.delete("/v1/tokens", headers=bearing(tokens["access_token"]))

    assert gone.status_code == 204
    assert is_unauthorized(await me(client, tokens["access_token"]))
    assert is_unauthorized(await refresh(client, tokens["refresh_token"]), invalid=False)
    assert (await me(client, other["access_token"])).status_code == 200


async def test_new_password_ends_other_sessions(client: httpx.AsyncClient, user: dict[str, Any]):
    mine, other = await tokens_of(client), await tokens_of(client)
    await me(client, other["access_token"])
    body = {"password": "prometheus unbound", "current_password": PASSWORD}
    changed = await client.patch("/v1/users/me", json=body, headers=bearing(mine["access_token"]))

    assert changed.status_code == 200
    assert (await me(client, mine["access_token"])).status_code == 200
    assert is_unauthorized(await me(client, other["access_token"]))
    assert (await log_in(client)).status_code == 401
    assert (await log_in(client, "prometheus unbound")).status_code == 200


async def test_new_password_ends_the_refresh_tokens_of_its_own_session_too(
    client: httpx.AsyncClient, user: dict[str, Any], resources: Resources
):
    """Used or not, replayed or not; and to try one ends nothing."""
    first = await tokens_of(client)

    async def refresh_first() -> httpx.Response:
        body = {"refresh_token": first["refresh_token"]}
        keyed = {"Idempotency-Key": "one"}
        return await client.post("/v1/tokens/refresh", json=body, headers=keyed)

    second = (await refresh_first()).json()
    change = {"password": "prometheus unbound", "current_password": PASSWORD}
    headers = bearing(second["access_token"])
    changed = await client.patch("/v1/users/me", json=change, headers=headers)

    refused = [await refresh(client, each["refresh_token"]) for each in (first, second)]
    refused.append(await refresh_first())
    assert changed.status_code == 200
    assert all(is_unauthorized(response, invalid=False) for response in refused)
    for each in (first, second):
        assert (await me(client, each["access_token"])).status_code == 200
    assert await session_count(resources) == 1


async def test_refreshes_beside_a_new_password_leave_no_token_and_the_session(
    client: httpx.AsyncClient, user: dict[str, Any], resources: Resources
):
    tokens = await tokens_of(client)
    headers = bearing(tokens["access_token"])
    change = {"password": "prometheus unbound", "current_password": PASSWORD}
    patch = asyncio.create_task(client.patch("/v1/users/me", json=change, headers=headers))
    responses = []
    while not patch.done():
        responses.append(await refresh(client, tokens["refresh_token"]))

    assert patch.result().status_code == 200
    assert {response.status_code for response in responses} <= {200, 401}
    given = [response.json() for response in responses if response.is_success]
    for each in [tokens, *given]:
        assert is_unauthorized(await refresh(client, each["refresh_token"]), invalid=False)
    assert (await me(client, tokens["access_token"])).status_code == 200


@pytest.mark.parametrize("given", [{}, {"current_password": "wrong"}])
async def test_new_password_needs_the_present_one(
    client: httpx.AsyncClient, user: dict[str, Any], given: dict[str, str]
):
    token = (await tokens_of(client))["access_token"]
    body = {"password": "prometheus unbound", **given}
    response = await client.patch("/v1/users/me", json=body, headers=bearing(token))

    assert response.status_code == 422
    assert response.json()["errors"][0]["loc"] == ["body", "current_password"]
    assert (await log_in(client)).status_code == 200


async def test_name_is_changed_and_shown(client: httpx.AsyncClient, user: dict[str, Any]):
    token = (await tokens_of(client))["access_token"]
    await me(client, token)
    await client.patch("/v1/users/me", json={"name": "Mary Shelley"}, headers=bearing(token))

    assert (await me(client, token)).json() == user | {"name": "Mary Shelley"}


@pytest.mark.parametrize(("role", "status"), [("reader", 403), ("editor", 201), ("admin", 201)])
async def test_who_may_write(
    client: httpx.AsyncClient, resources: Resources, role: str, status: int
):
    async with resources["sessions"].write() as session:
        token = await add_account(session, Role(role), resources["access_tokens"])
    response = await Shop(client, token).client.post(
        "/v1/payers", json={"name": "Somebody"}, headers=bearing(token)
    )

    assert response.status_code == status
    assert "WWW-Authenticate" not in response.headers


async def test_role_changes_at_once(
    client: httpx.AsyncClient, user: dict[str, Any], resources: Resources
):
    token = (await tokens_of(client))["access_token"]
    body = {"name": "Somebody"}
    before = await client.post("/v1/payers", json=body, headers=bearing(token))
    await UserService(resources).set_role(EMAIL, Role.EDITOR)
    after = await client.post("/v1/payers", json=body, headers=bearing(token))

    assert (before.status_code, after.status_code) == (403, 201)


async def test_tokens_of_a_deleted_user_end_with_him(
    client: httpx.AsyncClient, user: dict[str, Any], resources: Resources
):
    tokens = await tokens_of(client)
    async with resources["sessions"].write.begin() as session:
        await session.execute(delete(User))

    assert is_unauthorized(await me(client, tokens["access_token"]))
    assert is_unauthorized(await refresh(client, tokens["refresh_token"]), invalid=False)


async def test_user_is_loaded_once_and_then_known(
    client: httpx.AsyncClient, user: dict[str, Any], resources: Resources
):
    token = (await tokens_of(client))["access_token"]
    first, second = await me(client, token), await me(client, token)

    assert "db;" in first.headers["Server-Timing"]
    assert "db;" not in second.headers["Server-Timing"]


@pytest.fixture
async def content(client: httpx.AsyncClient, user: dict[str, Any]) -> dict[str, Any]:
    """What is in a good token."""
    token = (await tokens_of(client))["access_token"]
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


GOOD = {"typ": "at+jwt", "kid": AccessTokens(TokenSettings(audience=NAME, key=KEY))._newest}


@pytest.mark.parametrize(
    ("change", "key", "algorithm", "headers"),
    [
        ({"exp": 1}, KEY, "HS256", {}),
        ({"aud": "others"}, KEY, "HS256", {}),
        ({"iss": "others"}, KEY, "HS256", {}),
        ({"sub": None}, KEY, "HS256", {}),
        ({"sid": None}, KEY, "HS256", {}),
        ({"exp": None}, KEY, "HS256", {}),
        ({"sid": 10**9}, KEY, "HS256", {}),
        ({}, "another key of thirty-two characters", "HS256", {}),
        ({}, "", "none", {}),
        ({}, KEY, "HS512", {}),
        ({}, KEY, "HS256", {"typ": "JWT"}),
        ({}, KEY, "HS256", {"kid": "unknown"}),
        ({}, "\0" * 32, "HS256", {"kid": "unknown"}),
    ],
)
@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
async def test_token_that_is_not_quite_ours(
    client: httpx.AsyncClient,
    content: dict[str, Any],
    change: dict[str, Any],
    key: str,
    algorithm: str,
    headers: dict[str, str],
):
    changed = {name: v for name, v in {**content, **change}.items() if v is not None}
    token = jwt.encode(changed, key, algorithm, GOOD | headers)

    assert is_unauthorized(await me(client, token))
    good = jwt.encode(content, KEY, ALGORITHM, GOOD)
    assert (await me(client, good)).status_code == 200


async def test_session_of_another_account_gives_no_rights(
    client: httpx.AsyncClient, content: dict[str, Any], resources: Resources
):
    """In whichever order the forged and the genuine token come: neither spoils the other."""
    async with resources["sessions"].write() as session:
        token = await add_account(session, Role.EDITOR, resources["access_tokens"])
    editors = jwt.decode(token, options={"verify_signature": False})
    forged = [content | {"sid": editors["sid"]}, content | {"sub": editors["sub"]}]

    for _ in range(2):
        for claims in forged:
            response = await me(client, jwt.encode(claims, KEY, ALGORITHM, GOOD))
            assert is_unauthorized(response), claims
        assert (await me(client, token)).json()["role"] == "editor"
    # What ended the rights of the genuine token does so though the forged one came first.
    await UserService(resources).set_role((await me(client, token)).json()["email"], Role.READER)
    assert (await me(client, token)).json()["role"] == "reader"


async def test_numbers_of_sessions_cannot_be_counted(
    client: httpx.AsyncClient, user: dict[str, Any], resources: Resources
):
    for _ in range(8):
        await tokens_of(client)
    async with resources["sessions"].read() as session:
        ids = sorted(await session.scalars(select(UserSession.id)))

    gaps = [later - earlier for earlier, later in pairwise([0, *ids, 2**63])]
    assert min(gaps) > 2**32


# What a claim may be in JSON, and is not in ours.
ODD: list[Any] = [None, True, False, 0, -1, 1.5, "", "x", {}, {"a": [1]}, [], [1], "\0", "9" * 5000]
ODD += [float("nan"), float("inf"), 10**400]
ODD_IDS = [*ODD, "+1", " 1", "1_0", "\uff11", "0", "-1", 2**63, str(2**63)]


async def test_claim_of_an_odd_type_is_no_claim(client: httpx.AsyncClient, content: dict[str, Any]):
    """A token of another program that has the key, say; the first in whose place 1 would do."""
    odd: list[tuple[str, Any]] = [("sid", "1"), ("sub", 1), ("sid", 1.0)]
    odd += [(name, value) for name in ("sub", "sid") for value in ODD_IDS]
    odd += [(name, value) for name in ("aud", "iss") for value in ODD]
    odd += [("exp", value) for value in ODD if value != 10**400]
    no_time: list[Any] = [{}, [], "x", "", 10**400, float("inf")]
    odd += [("iat", value) for value in no_time]
    for name, value in odd:
        token = jwt.encode(content, KEY, ALGORITHM, GOOD)
        header, _, _ = token.split(".")
        body = base64url_encode(json.dumps(content | {name: value}).encode()).decode()
        signature = hmac.digest(KEY.encode(), f"{header}.{body}".encode(), "sha256")
        token = f"{header}.{body}.{base64url_encode(signature).decode()}"

        assert is_unauthorized(await me(client, token)), (name, value)


@pytest.mark.parametrize("claim", ["iat", "nbf", "exp"])
async def test_clocks_of_hosts_may_differ_by_some_seconds(
    client: httpx.AsyncClient, content: dict[str, Any], claim: str
):
    issued = int(time.time())

    async def status(seconds: int) -> int:
        changed = content | {claim: issued + seconds}
        return (await me(client, jwt.encode(changed, KEY, ALGORITHM, GOOD))).status_code

    sign = -1 if claim == "exp" else 1
    assert [await status(sign * seconds) for seconds in (1, LEEWAY - 2)] == [200, 200]
    assert await status(sign * (LEEWAY + 60)) == 401


def test_old_key_reads_what_the_new_one_does_not_sign():
    old, new = "o" * 32, "n" * 32
    claims = Claims(1, 2)
    before = AccessTokens(TokenSettings(audience=NAME, key=old))
    during = AccessTokens(TokenSettings(audience=NAME, key=new, old_keys=f"{old}, x"))
    after = AccessTokens(TokenSettings(audience=NAME, key=new))

    assert during.read(before.issue(claims)) == claims
    assert after.read(during.issue(claims)) == claims
    with pytest.raises(Exception, match="not valid"):
        after.read(before.issue(claims))


async def test_no_more_are_hashed_at_once_than_there_are_threads():
    passwords = Passwords(PasswordSettings(threads=2, max_waiting=5, time_cost=1, memory_cost=8))
    responses = await asyncio.gather(
        *(passwords.hash("x" * 10) for _ in range(8)), return_exceptions=True
    )
    passwords.close()

    refused = [str(response) for response in responses if isinstance(response, Exception)]
    assert refused == ["Too many passwords are being checked"] * 3


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority")
async def test_hashing_gives_way_to_the_event_loop():
    passwords = Passwords(PasswordSettings(time_cost=1, memory_cost=8))
    await passwords.hash("x" * 10)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("passwords")]
    policies = {os.sched_getscheduler(thread.native_id or 0) for thread in threads}
    own = os.sched_getscheduler(threading.get_native_id())
    passwords.close()

    assert policies == {os.SCHED_IDLE}
    assert own != os.SCHED_IDLE


@sqlite_only
async def test_operator_makes_an_account_and_changes_its_role(
    client: httpx.AsyncClient, environment: dict[str, Any], settings: Settings, tmp_path: Path
):
    variables = environment | {"CACHE_NAMESPACE": settings.cache.namespace}

    def command(*arguments: str, password: str = "", end: str = "\n") -> tuple[int, str, str]:
        return run(tmp_path, *arguments, text=password + end, **variables)

    make = ("create-user", "Boss@example.com", "--role", "editor")
    made, again = (command(*make, password=PASSWORD) for _ in range(2))
    short = command("create-user", "other@example.com", password="short")
    tokens = await tokens_of(client, email="boss@example.com")
    await me(client, tokens["access_token"])  # now it is cached
    changed = command("set-role", "boss@example.com", "admin")
    unknown = command("set-role", "nobody@example.com", "admin")
    nonsense = command("set-role", "Boss <boss@example.com>", "admin")

    assert made[0] == 0
    assert made[1].endswith(": boss@example.com, editor\n")
    assert again == (1, "", "There is an account for boss@example.com already\n")
    assert (short[0], short[2]) == (1, "password: String should have at least 12 characters\n")
    assert (changed[0], changed[1].splitlines()[-1]) == (0, "boss@example.com: admin")
    assert unknown == (1, "", "There is no account for nobody@example.com\n")
    assert nonsense[0] == 1
    assert nonsense[2].startswith("email: A display name and angle brackets")
    assert (await me(client, tokens["access_token"])).json()["role"] == "admin"
