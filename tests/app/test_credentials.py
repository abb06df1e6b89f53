"""Passwords and addresses: the forms in which they are taken, and that all readers agree."""

import json
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2 as httpx
import pytest

from app.main import create_app
from app.settings import Settings
from chassis.limits.settings import LimitsSettings
from chassis.resources import Resources, open_resources
from chassis.text.email_address import ascii_form, normalize_email
from tests.command import run
from tests.conftest import client_of
from tests.databases import sqlite_only
from tests.logins import EMAIL, PASSWORD, REGISTER, bearing, is_unauthorized, log_in, me, tokens_of

# As a keyboard of a Mac types it, and as one of Windows does.
DECOMPOSED, COMPOSED = "cafe\u0301 \u1103\u1161\u11af au lait", "caf\u00e9 \ub2ec au lait"


@pytest.mark.parametrize(
    ("password", "same", "others"),
    [
        ("  correct horse  ", [], ["correct horse", " correct horse ", "  correct horse"]),
        (" " * 12, [], [" " * 11, " " * 13]),
        (DECOMPOSED, [COMPOSED], [COMPOSED.replace("\u00e9", "e")]),
        (COMPOSED, [DECOMPOSED], [COMPOSED.upper()]),
        # What NFKC, case folding or a trim of Unicode's spaces would change.
        (
            "\u00a0\ufb01\uff21\u2126\u00df 42, 43\u3000",
            ["\u00a0\ufb01\uff21\u03a9\u00df 42, 43\u3000"],
            ["\u00a0fiA\u03a9\u00df 42, 43\u3000", " fiA\u03a9\u00df 42, 43 "],
        ),
        ("\u200bne\u200d \ufe0f\ufeff\u202e, two!", [], ["ne , two!"]),
        ("\U0001f469\u200d\U0001f467 family of two", [], ["family of two"]),
        ("\u1f67\u0301\u0345" * 100, [], ["\u1f67"]),
        ("x" * 1024, [], ["x" * 1023, "x" * 1025]),
        ("\u1fa7" * 341, ["\u03c9\u0314\u0342\u0345" * 341], ["\u03c9" * 341]),
    ],
)
async def test_password_is_what_was_typed_wherever_it_is_read(
    client: httpx.AsyncClient, password: str, same: list[str], others: list[str]
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
        "a" + "\u0315\u0316" * 2500,
        "\ud800" * 12,
        "nul\0nul\0nul\0nul",
        "a line\nbreak in it",
        "e\u0301" * 11,
    ],
    ids=["long", "bytes", "marks", "surrogates", "nul", "line break", "short when composed"],
)
async def test_password_that_no_account_may_have(
    client: httpx.AsyncClient, user: dict[str, Any], password: str, resources: Resources
):
    token = (await tokens_of(client))["access_token"]
    bodies = [{"current_password": PASSWORD, "password": password}]
    bodies += [{"current_password": password, "password": "prometheus unbound"}]
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

    assert [response.status_code for response in refused] == [422, 422, 422]
    assert max(len(response.content) for response in refused) < 1000
    assert login.status_code == 401


@pytest.mark.parametrize("name", ["grant_type", "username", "password"])
async def test_login_field_that_is_sent_twice_is_refused(client: httpx.AsyncClient, name: str):
    """Which of the two counts would not be clear (RFC 6749, 3.2)."""
    await client.post("/v1/users", json=REGISTER)
    form = [("grant_type", "password"), ("username", EMAIL), ("password", PASSWORD)]
    again = (name, dict(form)[name])

    for fields in ([*form, again], [(name, "another"), *form]):
        body = urlencode(fields)
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        refused = await client.post("/v1/tokens", content=body, headers=kind)
        parts: Any = [(each, (None, value)) for each, value in fields]
        in_parts = await client.post("/v1/tokens", files=parts)

        for response in (refused, in_parts):
            assert response.status_code == 422, response.text
            assert response.json()["errors"][0]["loc"] == ["body", name]


@pytest.mark.parametrize(
    "password",
    [
        *("short", "x" * 11, "mary.shelley", "Mary.Shelley ", "mary.shelley@example.com"),
        *("qwerty123456", "QWERTYuiop123", " 1qaz2wsx3edc "),
        *("MARY.SHELLEY@B\u00dcCHER.example", "mary.shelley@xn--bcher-kva.example"),
    ],
)
async def test_weak_password_is_refused_wherever_it_is_new(
    client: httpx.AsyncClient, password: str
):
    """And only there: who has one may use it, to log in and to change it."""
    domain = "example.com" if password.endswith(".com") else "b\u00fccher.example"
    body = REGISTER | {"email": f"mary.shelley@{domain}"}
    refused = await client.post("/v1/users", json=body | {"password": password})
    await client.post("/v1/users", json=body)
    tokens = await tokens_of(client, email=body["email"])
    change = {"current_password": PASSWORD, "password": password}
    headers = bearing(tokens["access_token"])
    unchanged = await client.patch("/v1/users/me", json=change, headers=headers)

    for response in (refused, unchanged):
        assert response.status_code == 422
        assert response.json()["errors"][0]["loc"] == ["body", "password"]
    assert (await log_in(client, email=body["email"])).status_code == 200


async def test_password_of_before_the_rule_is_good_until_it_is_changed(
    settings: Settings, resources: Resources
):
    settings.passwords.min_length = 5
    async with (
        open_resources(settings) as before,
        client_of(create_app(settings), before) as client,
    ):
        made = await client.post("/v1/users", json=REGISTER | {"password": "sh0rt!"})
    settings.passwords.min_length = 20
    async with open_resources(settings) as after, client_of(create_app(settings), after) as client:
        headers = bearing((await tokens_of(client, password="sh0rt!"))["access_token"])
        changes = [
            await client.patch(
                "/v1/users/me",
                json={"current_password": "sh0rt!", "password": "x" * length},
                headers=headers,
            )
            for length in (19, 20)
        ]

    assert made.status_code == 201
    assert [response.status_code for response in changes] == [422, 200]


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
    client: httpx.AsyncClient, registered: str
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
async def test_address_that_registers_logs_in(client: httpx.AsyncClient, email: str):
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


async def test_login_limit_of_an_account_is_one_for_all_spellings(settings: Settings):
    settings.limits = LimitsSettings(
        login_rate=0.01, login_burst=3, account_rate=0.01, account_burst=3
    )
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
    # One of the account, one of each network and one of it for each of both that was not refused,
    # but none for what can be anything.
    counted = Counter(str(key).split(":")[2] for key in keys)
    assert counted == {"account_guesses": 1, "guesses": 3, "login": 5 + 1}


@sqlite_only
@pytest.mark.parametrize("end", ["\r\n", ""])
async def test_operator_and_owner_may_spell_address_and_password_in_different_ways(
    client: httpx.AsyncClient, environment: dict[str, Any], tmp_path: Path, end: str
):
    spelling = "A@xn--bcher-kva.example"
    text = f"  {DECOMPOSED}  {end}"
    run(tmp_path, "create-user", spelling, "--name", "A", text=text, **environment)
    _, said, _ = run(tmp_path, "set-role", "a@B\u00dcCHER.example", "admin", **environment)

    assert said.splitlines()[-1] == "a@b\u00fccher.example: admin"
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
    code, _, errors = run(tmp_path, "create-user", "boss@example.com", text=sent, **environment)

    assert (code, errors) == (1, f"password: {reason}\n")
