"""Accounts, logins and the tokens that come of them."""

import asyncio
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2
import jwt
import pytest
from sqlalchemy import delete, select, update

from app.access_tokens import ALGORITHM, AccessTokens, Claims
from app.accounts import users_of
from app.email_address import ascii_form, normalize_email
from app.main import create_app
from app.models import RefreshToken, User
from app.models.base import now
from app.passwords import Passwords
from app.resources import Resources, open_resources
from app.schemas.user import Role
from app.services.logins import LoginService
from app.settings import LimitsSettings, PasswordSettings, Settings, TokenSettings
from tests.accounts import add_account
from tests.catalogue import Catalogue
from tests.command import start
from tests.conftest import client_of
from tests.databases import sqlite_only
from tests.process import TIMEOUT

EMAIL, PASSWORD = "mary@example.com", "frankenstein"
REGISTER = {"email": EMAIL, "name": "Mary", "password": PASSWORD}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    settings.passwords = PasswordSettings(time_cost=1, memory_cost=8)  # what it costs is not tested
    return settings


@pytest.fixture
async def user(client: httpx2.AsyncClient) -> dict[str, Any]:
    answer = await client.post("/v1/users", json=REGISTER)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def log_in(
    client: httpx2.AsyncClient, password: str = PASSWORD, email: str = EMAIL
) -> httpx2.Response:
    form = {"grant_type": "password", "username": email, "password": password}
    return await client.post("/v1/tokens", data=form)


async def tokens_of(client: httpx2.AsyncClient, **form: str) -> dict[str, Any]:
    answer = await log_in(client, **form)
    assert answer.status_code == 200, answer.text
    tokens: dict[str, Any] = answer.json()
    return tokens


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def me(client: httpx2.AsyncClient, token: str) -> httpx2.Response:
    return await client.get("/v1/users/me", headers=bearing(token))


async def refresh(client: httpx2.AsyncClient, token: str) -> httpx2.Response:
    return await client.post("/v1/tokens/refresh", json={"refresh_token": token})


def is_unauthorized(answer: httpx2.Response, invalid: bool = True) -> bool:
    """As RFC 6750 wants it, and as a problem."""
    scheme = 'Bearer error="invalid_token"' if invalid else "Bearer"
    assert answer.headers["Content-Type"] == "application/problem+json"
    return (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, scheme)


async def test_registered_user_is_a_reader_and_no_password_is_shown(user: dict[str, Any]):
    assert user["role"] == "reader"
    assert user["email"] == EMAIL
    assert user.keys() == {"id", "email", "name", "role", "created_at"}


async def test_password_is_kept_as_argon2id(user: dict[str, Any], resources: Resources):
    async with resources["sessions"].read() as session:
        hash = await session.scalar(select(User.password_hash))

    assert hash is not None
    assert hash.startswith("$argon2id$v=19$m=8,t=1,p=1$")


async def test_address_is_taken_once_however_it_is_written(
    client: httpx2.AsyncClient, user: dict[str, Any]
):
    again = await client.post("/v1/users", json=REGISTER | {"email": "Mary@Example.com"})

    assert again.status_code == 409


async def test_fifty_who_want_the_same_address_at_once_get_one_account(
    client: httpx2.AsyncClient, resources: Resources
):
    answers = await asyncio.gather(*(client.post("/v1/users", json=REGISTER) for _ in range(50)))
    async with resources["sessions"].read() as session:
        emails = (await session.scalars(select(User.email))).all()

    statuses = sorted(answer.status_code for answer in answers)
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
async def test_nonsense_is_no_account(client: httpx2.AsyncClient, field: str, value: Any):
    answer = await client.post("/v1/users", json=REGISTER | {field: value})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["loc"] == ["body", field]
    assert PASSWORD not in answer.text


# As a keyboard of a Mac types it, and as one of Windows does.
DECOMPOSED, COMPOSED = "cafe\u0301 \u1103\u1161\u11af au lait", "caf\u00e9 \ub2ec au lait"


@pytest.mark.parametrize(
    ("password", "same", "others"),
    [
        ("  correct horse  ", [], ["correct horse", " correct horse ", "  correct horse"]),
        (" " * 8, [], [" " * 7, " " * 9]),
        (DECOMPOSED, [COMPOSED], [COMPOSED.replace("\u00e9", "e")]),
        (COMPOSED, [DECOMPOSED], [COMPOSED.upper()]),
        # What NFKC, case folding or a trim of Unicode's spaces would change.
        (
            "\u00a0\ufb01\uff21\u2126\u00df 42\u3000",
            ["\u00a0\ufb01\uff21\u03a9\u00df 42\u3000"],
            ["fia\u03c9ss 42"],
        ),
        ("\u200bne\u200d \ufe0f\ufeff\u202e!", [], ["ne !"]),
        ("\U0001f469\u200d\U0001f467 family", [], ["family"]),
        ("\u1f67\u0301\u0345" * 100, [], ["\u1f67"]),
        ("x" * 1024, [], ["x" * 1023, "x" * 1025]),
        ("\u1fa7" * 341, ["\u03c9\u0314\u0342\u0345" * 341], ["\u03c9" * 341]),
    ],
)
async def test_password_is_what_was_typed_wherever_it_is_read(
    client: httpx2.AsyncClient, password: str, same: list[str], others: list[str]
):
    """At registration, at login and when it is changed; one letter may be typed in two ways."""
    made = await client.post("/v1/users", json=REGISTER | {"password": password})
    assert made.status_code == 201, made.text
    token = (await tokens_of(client, password=password))["access_token"]

    async def change(current: str, new: str) -> int:
        body = {"current_password": current, "password": new}
        return (await client.patch("/v1/users/me", json=body, headers=bearing(token))).status_code

    for spelling in same:
        assert (await log_in(client, spelling)).status_code == 200
    for other in others:
        assert (await log_in(client, other)).status_code == 401
        assert await change(other, PASSWORD) == 422
    assert await change([*same, password][0], PASSWORD) == 200
    assert await change(PASSWORD, password) == 200
    assert (await log_in(client, password)).status_code == 200


@pytest.mark.parametrize(
    "password",
    [
        "x" * 1025,
        "\u20ac" * 342,
        "a" + "\u0315\u0316" * 60_000,
        "\ud800" * 8,
        "nul\0nul\0nul",
        "line\nbreak",
        "e\u0301" * 7,
    ],
    ids=["long", "bytes", "marks", "surrogates", "nul", "line break", "short when composed"],
)
async def test_password_that_no_account_may_have(
    client: httpx2.AsyncClient, user: dict[str, Any], password: str, resources: Resources
):
    token = (await tokens_of(client))["access_token"]
    bodies = [{"current_password": PASSWORD, "password": password}]
    bodies += [{"current_password": password, "password": "prometheus"}]
    # Not written by httpx, which refuses a lone surrogate.
    content = [json.dumps(body) for body in [{**REGISTER, "password": password}, *bodies]]
    headers = bearing(token) | {"Content-Type": "application/json"}

    refused = [await client.post("/v1/users", content=content[0], headers=headers)]
    refused += [
        await client.patch("/v1/users/me", content=body, headers=headers) for body in content[1:]
    ]
    form = urlencode({"username": EMAIL, "password": password}, errors="surrogatepass")
    headers["Content-Type"] = "application/x-www-form-urlencoded"
    login = await client.post("/v1/tokens", content=form, headers=headers)

    assert [answer.status_code for answer in refused] == [422, 422, 422]
    assert max(len(answer.content) for answer in refused) < 1000
    assert login.status_code == 401


async def test_password_that_is_too_long_is_never_hashed(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
):
    """Whether or not there is such an account, so that the time says nothing of it."""
    passwords = resources["passwords"]
    hash = await passwords.hash(PASSWORD)
    monkeypatch.setattr(passwords, "_verify", lambda *_: pytest.fail("It was hashed"))

    for of_account in (hash, None):
        assert not (await passwords.verify("x" * 1025, of_account)).matches


SPELLINGS = [
    "a@b\u00fccher.example",
    "A@B\u00dcCHER.Example",
    "a@bu\u0308cher.example",
    "a@xn--bcher-kva.example",
    "a@XN--BCHER-KVA.EXAMPLE",
    " a@b\u00fccher.example ",
    "\uff41\uff20\uff42\u00fccher\uff0eexample",
    "a@b\u00fccher\u3002example",
]


@pytest.mark.parametrize("registered", SPELLINGS)
async def test_all_spellings_of_an_address_are_one_account(
    client: httpx2.AsyncClient, registered: str
):
    made = await client.post("/v1/users", json=REGISTER | {"email": registered})
    assert made.status_code == 201, made.text

    assert made.json()["email"] == "a@b\u00fccher.example"
    for spelling in SPELLINGS:
        again = await client.post("/v1/users", json=REGISTER | {"email": spelling})
        assert (again.status_code, again.json()["type"]) == (409, "about:blank"), spelling
        assert (await log_in(client, email=spelling)).status_code == 200, spelling


ODD_ADDRESSES = [
    *("Mary <mary@example.com>", "<mary@example.com>", '"Mary" <mary@example.com>'),
    *('"mary"@example.com', '"a b"@example.com', "mary@[127.0.0.1]", "mary@example.com."),
    *("mary @example.com", "mary@exam ple.com", "mary(1)@example.com", "a,b@example.com"),
    *("mary@example.com\nBcc: a@example.com", "mary@example..com", ".mary@example.com"),
    *("mary@localhost", "mary@127.0.0.1", "mary@xn--zz.example", "mary@-a.example"),
    *(
        "ma\u200bry@example.com",
        "mary@exam\u00adple.com\u202e",
        "\u0301mary@example.com",
        "a\0@a.com",
    ),
    *("x" * 243 + "@example.com", "mary@" + "a." * 130 + "com", "m@" + "x" * 64 + ".example"),
    *("mary@\u2603.example", "mary@a_b.example", "mary", "@", "a@b@example.com"),
    *("\ufb01@example.com", "\u017f@example.com", "\u0130@example.com", "\u1e9e@example.com"),
    *("\u03a3\u039f\u03a3@\u03a3\u039f\u03a3.example", "M\u00c4RY@\u0130stanbul.example"),
    *("o'brien+tag@example.com", "a@stra\u00dfe.example", "\uff8a\uff9f@example.com"),
    *("\u00e9" * 100 + "@example.com", "\u00e9" * 130 + "@example.com", "x" * 242 + "@example.com"),
    "\u0e04\u0e33@example.com",
]


@pytest.mark.parametrize("email", ODD_ADDRESSES)
async def test_address_that_registers_logs_in(client: httpx2.AsyncClient, email: str):
    """As it was written, as it is shown and as SMTP has it; or it is refused, then everywhere."""
    made = await client.post("/v1/users", json=REGISTER | {"email": email})
    login = await log_in(client, email=email)

    if made.status_code == 422:
        assert made.json()["errors"][0]["loc"] == ["body", "email"]
        assert is_unauthorized(login, invalid=False)
        return
    shown = made.json()["email"]
    assert (made.status_code, login.status_code) == (201, 200), made.text
    for spelling in (shown, ascii_form(shown)):
        assert (await log_in(client, email=spelling)).status_code == 200, spelling


def test_form_of_an_address_is_a_fixed_point():
    """So that an account is found by what is stored, whichever letters it has."""
    letters = map(chr, [*range(0x80, 0x600), *range(0x600, 0x30000, 29)])
    taken = 0
    for letter in letters:
        for text in (f"a{letter}@example.com", f"a@b{letter}.example"):
            try:
                normal = normalize_email(text)
            except ValueError:
                continue
            taken += 1
            assert normalize_email(normal) == normal == normalize_email(ascii_form(normal))

    assert taken > 5000


async def test_login_gives_tokens_that_say_who_asks(
    client: httpx2.AsyncClient, user: dict[str, Any]
):
    answer = await log_in(client, email="MARY@example.com")
    tokens = answer.json()

    assert answer.headers["Cache-Control"] == "private, no-store"
    assert tokens.keys() == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert (tokens["token_type"], tokens["expires_in"]) == ("bearer", 900)
    assert (await me(client, tokens["access_token"])).json() == user


@pytest.mark.parametrize(
    ("email", "password"), [(EMAIL, "wrong"), ("nobody@example.com", "x"), ("no address", "x")]
)
async def test_wrong_password_and_unknown_account_look_alike(
    client: httpx2.AsyncClient, user: dict[str, Any], email: str, password: str
):
    answer = await log_in(client, password, email)

    assert is_unauthorized(answer, invalid=False)
    assert answer.json()["detail"] == "The e-mail address or the password is wrong"


@pytest.mark.parametrize("email", ["nobody@example.com", "no address"])
async def test_unknown_account_costs_a_hash_too(
    client: httpx2.AsyncClient, resources: Resources, monkeypatch: pytest.MonkeyPatch, email: str
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
        answers = await asyncio.gather(*(log_in(client) for _ in range(10)))

    assert [answer.status_code for answer in answers] == [200] * 10


async def test_hash_that_another_login_made_anew_is_left_alone(
    settings: Settings, user: dict[str, Any], resources: Resources
):
    settings.passwords = PasswordSettings(time_cost=2, memory_cost=16)
    hashes = []
    async with open_resources(settings) as newer:
        logins = LoginService(
            newer["sessions"], newer["cache"], newer["passwords"], newer["access_tokens"], ttl=60
        )
        for _ in range(2):
            await logins.rehash(EMAIL, PASSWORD)
            async with newer["sessions"].read() as session:
                hashes.append(await session.scalar(select(User.password_hash)))

    assert hashes[0] == hashes[1]
    assert "m=16,t=2" in str(hashes[0])


async def test_refresh_goes_on_with_new_tokens(client: httpx2.AsyncClient, user: dict[str, Any]):
    first = await tokens_of(client)
    second = (await refresh(client, first["refresh_token"])).json()
    third = await refresh(client, second["refresh_token"])

    assert third.status_code == 200
    assert len({first["refresh_token"], second["refresh_token"]}) == 2
    assert (await me(client, third.json()["access_token"])).status_code == 200


async def test_refresh_token_that_is_used_again_ends_its_session_and_no_other(
    client: httpx2.AsyncClient, user: dict[str, Any]
):
    stolen, other = await tokens_of(client), await tokens_of(client)
    await me(client, stolen["access_token"])  # now the session is cached
    owners = (await refresh(client, stolen["refresh_token"])).json()
    thiefs = await refresh(client, stolen["refresh_token"])

    assert is_unauthorized(thiefs, invalid=False)
    assert is_unauthorized(await refresh(client, owners["refresh_token"]), invalid=False)
    for token in (stolen["access_token"], owners["access_token"]):
        assert is_unauthorized(await me(client, token))
    assert (await me(client, other["access_token"])).status_code == 200


async def test_of_many_refreshes_at_once_with_one_token_at_most_one_counts(
    client: httpx2.AsyncClient, user: dict[str, Any]
):
    token = (await tokens_of(client))["refresh_token"]
    answers = await asyncio.gather(*(refresh(client, token) for _ in range(10)))

    statuses = [answer.status_code for answer in answers]
    assert statuses.count(200) <= 1
    assert set(statuses) <= {200, 401}


async def test_session_ends_when_nobody_refreshes_it(
    client: httpx2.AsyncClient, user: dict[str, Any], resources: Resources
):
    tokens = await tokens_of(client)
    async with resources["sessions"].write.begin() as session:
        await session.execute(update(RefreshToken).values(expires_at=now()))

    assert is_unauthorized(await refresh(client, tokens["refresh_token"]), invalid=False)


async def test_logout_ends_both_tokens_at_once(client: httpx2.AsyncClient, user: dict[str, Any]):
    tokens, other = await tokens_of(client), await tokens_of(client)
    await me(client, tokens["access_token"])
    gone = await client.delete("/v1/tokens", headers=bearing(tokens["access_token"]))

    assert gone.status_code == 204
    assert is_unauthorized(await me(client, tokens["access_token"]))
    assert is_unauthorized(await refresh(client, tokens["refresh_token"]), invalid=False)
    assert (await me(client, other["access_token"])).status_code == 200


async def test_new_password_ends_other_sessions(client: httpx2.AsyncClient, user: dict[str, Any]):
    mine, other = await tokens_of(client), await tokens_of(client)
    await me(client, other["access_token"])
    body = {"password": "prometheus", "current_password": PASSWORD}
    changed = await client.patch("/v1/users/me", json=body, headers=bearing(mine["access_token"]))

    assert changed.status_code == 200
    assert (await me(client, mine["access_token"])).status_code == 200
    assert is_unauthorized(await me(client, other["access_token"]))
    assert (await log_in(client)).status_code == 401
    assert (await log_in(client, "prometheus")).status_code == 200


@pytest.mark.parametrize("given", [{}, {"current_password": "wrong"}])
async def test_new_password_needs_the_present_one(
    client: httpx2.AsyncClient, user: dict[str, Any], given: dict[str, str]
):
    token = (await tokens_of(client))["access_token"]
    body = {"password": "prometheus", **given}
    answer = await client.patch("/v1/users/me", json=body, headers=bearing(token))

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["loc"] == ["body", "current_password"]
    assert (await log_in(client)).status_code == 200


async def test_name_is_changed_and_shown(client: httpx2.AsyncClient, user: dict[str, Any]):
    token = (await tokens_of(client))["access_token"]
    await me(client, token)
    await client.patch("/v1/users/me", json={"name": "Mary Shelley"}, headers=bearing(token))

    assert (await me(client, token)).json() == user | {"name": "Mary Shelley"}


@pytest.mark.parametrize(("role", "status"), [("reader", 403), ("editor", 201), ("admin", 201)])
async def test_who_may_write(
    client: httpx2.AsyncClient, resources: Resources, role: str, status: int
):
    async with resources["sessions"].write() as session:
        token = await add_account(session, Role(role), resources["access_tokens"])
    answer = await Catalogue(client, token).client.post(
        "/v1/authors", json={"name": "Somebody"}, headers=bearing(token)
    )

    assert answer.status_code == status
    assert "WWW-Authenticate" not in answer.headers


async def test_role_changes_at_once(
    client: httpx2.AsyncClient, user: dict[str, Any], resources: Resources
):
    token = (await tokens_of(client))["access_token"]
    body = {"name": "Somebody"}
    before = await client.post("/v1/authors", json=body, headers=bearing(token))
    await users_of(resources).set_role(EMAIL, Role.EDITOR)
    after = await client.post("/v1/authors", json=body, headers=bearing(token))

    assert (before.status_code, after.status_code) == (403, 201)


async def test_tokens_of_a_deleted_user_end_with_him(
    client: httpx2.AsyncClient, user: dict[str, Any], resources: Resources
):
    tokens = await tokens_of(client)
    async with resources["sessions"].write.begin() as session:
        await session.execute(delete(User))

    assert is_unauthorized(await me(client, tokens["access_token"]))
    assert is_unauthorized(await refresh(client, tokens["refresh_token"]), invalid=False)


async def test_user_is_loaded_once_and_then_known(
    client: httpx2.AsyncClient, user: dict[str, Any], resources: Resources
):
    token = (await tokens_of(client))["access_token"]
    first, second = await me(client, token), await me(client, token)

    assert "db;" in first.headers["Server-Timing"]
    assert "db;" not in second.headers["Server-Timing"]


@pytest.fixture
async def content(client: httpx2.AsyncClient, user: dict[str, Any]) -> dict[str, Any]:
    """What is in a good token."""
    token = (await tokens_of(client))["access_token"]
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


KEY = TokenSettings().keys[0]
GOOD = {"typ": "at+jwt", "kid": AccessTokens(TokenSettings())._newest}


@pytest.mark.parametrize(
    ("change", "key", "algorithm", "headers"),
    [
        ({"exp": 1}, KEY, "HS256", {}),
        ({"aud": "others"}, KEY, "HS256", {}),
        ({"iss": "others"}, KEY, "HS256", {}),
        ({"sub": "x"}, KEY, "HS256", {}),
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
    client: httpx2.AsyncClient,
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


def test_old_key_reads_what_the_new_one_does_not_sign():
    old, new = "o" * 32, "n" * 32
    claims = Claims(1, 2)
    before = AccessTokens(TokenSettings(key=old))
    during = AccessTokens(TokenSettings(key=new, old_keys=f"{old}, x"))
    after = AccessTokens(TokenSettings(key=new))

    assert during.read(before.issue(claims)) == claims
    assert after.read(during.issue(claims)) == claims
    with pytest.raises(Exception, match="not valid"):
        after.read(before.issue(claims))


async def test_login_is_limited_by_address_and_by_account(settings: Settings):
    settings.limits = LimitsSettings(login_rate=0.01, login_burst=3)
    app = create_app(settings)
    async with open_resources(settings) as resources, client_of(app, resources) as client:
        statuses = [(await log_in(client)).status_code for _ in range(4)]
        refused = await log_in(client)
        # Another address, the same account.
        transport = client._transport
        transport.client = ("203.0.113.9", 1)  # type: ignore[attr-defined]
        elsewhere = await log_in(client)
        another = await log_in(client, email="other@example.com")

    assert statuses == [401, 401, 401, 429]
    assert refused.headers["Retry-After"]
    assert (elsewhere.status_code, another.status_code) == (429, 401)


async def test_login_limit_of_an_account_is_one_for_all_spellings(settings: Settings):
    settings.limits = LimitsSettings(login_rate=0.01, login_burst=3)
    app = create_app(settings)
    async with open_resources(settings) as resources, client_of(app, resources) as client:

        async def from_elsewhere(number: int, email: str) -> int:
            transport = client._transport
            transport.client = (f"203.0.113.{number}", 1)  # type: ignore[attr-defined]
            return (await log_in(client, email=email)).status_code

        statuses = [await from_elsewhere(*pair) for pair in enumerate(SPELLINGS[:5])]
        no_address = [await from_elsewhere(9, f"no address {number}") for number in range(5)]
        keys = await resources["redis"].keys(f"{settings.cache.namespace}:limit:*")

    assert statuses == [401, 401, 401, 429, 429]
    assert no_address == [401, 401, 401, 429, 429]
    # One of the account and one of each network, but none for what can be anything.
    assert len(keys) == 1 + 5 + 1


async def test_no_more_are_hashed_at_once_than_there_are_threads():
    passwords = Passwords(PasswordSettings(threads=2, max_waiting=5, time_cost=1, memory_cost=8))
    answers = await asyncio.gather(
        *(passwords.hash("x" * 10) for _ in range(8)), return_exceptions=True
    )
    passwords.close()

    refused = [str(answer) for answer in answers if isinstance(answer, Exception)]
    assert refused == ["Too many passwords are being checked right now"] * 3


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
    client: httpx2.AsyncClient, environment: dict[str, Any], settings: Settings, tmp_path: Path
):
    variables = environment | {"CACHE_NAMESPACE": settings.cache.namespace}

    def run(*arguments: str, password: str = "", end: str = "\n") -> tuple[int, str, str]:
        process = start(tmp_path, *arguments, **variables)
        output, errors = process.communicate(password + end, timeout=TIMEOUT)
        return process.returncode, output, errors

    make = ("create-user", "Boss@example.com", "--role", "editor")
    made, again = (run(*make, password=PASSWORD) for _ in range(2))
    short = run("create-user", "other@example.com", password="short")
    tokens = await tokens_of(client, email="boss@example.com")
    await me(client, tokens["access_token"])  # now it is cached
    changed = run("set-role", "boss@example.com", "admin")
    unknown = run("set-role", "nobody@example.com", "admin")
    nonsense = run("set-role", "Boss <boss@example.com>", "admin")

    assert made[0] == 0
    assert made[1].endswith(": boss@example.com, editor\n")
    assert again == (1, "", "There is an account for boss@example.com already\n")
    assert (short[0], short[2]) == (1, "password: String should have at least 8 characters\n")
    assert changed == (0, "boss@example.com: admin\n", "")
    assert unknown == (1, "", "There is no account for nobody@example.com\n")
    assert nonsense[0] == 1
    assert nonsense[2].startswith("email: A display name and angle brackets")
    assert (await me(client, tokens["access_token"])).json()["role"] == "admin"


@sqlite_only
@pytest.mark.parametrize("end", ["\r\n", ""])
async def test_operator_and_owner_may_spell_address_and_password_in_different_ways(
    client: httpx2.AsyncClient, environment: dict[str, Any], tmp_path: Path, end: str
):
    spelling = "A@xn--bcher-kva.example"
    process = start(tmp_path, "create-user", spelling, "--name", "A", **environment)
    process.communicate(f"  {DECOMPOSED}  {end}", timeout=TIMEOUT)
    role = start(tmp_path, "set-role", "a@B\u00dcCHER.example", "admin", **environment)
    said = role.communicate(timeout=TIMEOUT)

    assert said == ("a@b\u00fccher.example: admin\n", "")
    tokens = await tokens_of(client, email="a@b\u00fccher.example", password=f"  {COMPOSED}  ")
    assert (await me(client, tokens["access_token"])).json()["role"] == "admin"
    assert (await log_in(client, COMPOSED, spelling)).status_code == 401


@sqlite_only
@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"carriage return\r", "Contains a control character"),
        (b"latin-1 caf\xe9\n", "Is not UTF-8"),
    ],
)
def test_operator_learns_why_a_password_is_refused(
    environment: dict[str, Any], tmp_path: Path, sent: bytes, reason: str
):
    process = start(tmp_path, "create-user", "boss@example.com", **environment)
    assert process.stdin is not None
    os.write(process.stdin.fileno(), sent)
    _, errors = process.communicate(timeout=TIMEOUT)

    assert (process.returncode, errors) == (1, f"password: {reason}\n")
