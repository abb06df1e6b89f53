"""Registration while USERS_VERIFY is on: only the owner of an address learns what it did."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import func, select

from app.models import User
from app.schemas.user import Role, UserCreate
from app.services.accounts.users import UserService
from app.settings import Settings, UsersSettings
from chassis.limits.settings import LimitsSettings
from chassis.mail.settings import MailSettings
from chassis.resources import Resources, open_resources
from tests.account_mail import (
    ACCEPTED,
    CONFIRM_RESET,
    RESET,
    VERIFY,
    Mailbox,
    html_of,
    text_of,
    token_of,
)
from tests.authenticator import App
from tests.conftest import client_of
from tests.jobs import waiting
from tests.logins import (
    EMAIL,
    PASSWORD,
    REGISTER,
    bearing,
    is_unauthorized,
    log_in,
    tokens_of,
)
from tests.mail import SENDER
from tests.service import create_app

STRANGER = REGISTER | {"name": "Mallory", "password": "the strangers own"}


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    settings.users = UsersSettings(verify=True)
    settings.mail = MailSettings(sender=SENDER, url=f"file://{tmp_path}/mail")
    return settings


@pytest.fixture
def mailbox(
    client: httpx.AsyncClient, settings: Settings, resources: Resources, tmp_path: Path
) -> Mailbox:
    return Mailbox(client, resources, tmp_path / "mail")


async def register(client: httpx.AsyncClient, body: dict[str, str] = REGISTER) -> None:
    response = await client.post("/v1/users", json=body)
    assert (response.status_code, response.json()) == (202, ACCEPTED)


async def verify(client: httpx.AsyncClient, token: str, password: str = PASSWORD) -> httpx.Response:
    return await client.post(VERIFY, json={"token": token, "password": password})


async def test_account_can_log_in_once_its_address_is_verified(mailbox: Mailbox):
    await register(mailbox.client)
    [mail] = await mailbox.take()
    before = await log_in(mailbox.client)
    verified = await verify(mailbox.client, token_of(mail))
    after = await log_in(mailbox.client)

    assert mail["To"] == EMAIL
    assert "Mary" not in text_of(mail) + html_of(mail)
    assert is_unauthorized(before, invalid=False)
    assert (verified.status_code, verified.json()["email"]) == (200, EMAIL)
    assert verified.json()["role"] == "reader"
    assert after.status_code == 200
    assert await mailbox.take() == []


async def test_known_address_gets_the_same_response_and_another_mail(mailbox: Mailbox):
    await register(mailbox.client)
    [first] = await mailbox.take()
    await verify(mailbox.client, token_of(first))
    known = await mailbox.client.post("/v1/users", json=STRANGER)
    [mail] = await mailbox.take()
    unknown = await mailbox.client.post("/v1/users", json=STRANGER | {"email": "n@example.com"})

    assert (known.status_code, known.json()) == (202, ACCEPTED)
    assert (unknown.status_code, unknown.content) == (202, known.content)
    assert known.headers.keys() == unknown.headers.keys()
    assert mail["To"] == EMAIL
    assert "There is one already, and nothing has changed" in " ".join(text_of(mail).split())
    assert "/reset-password" in text_of(mail)
    assert "#token=" not in str(mail)
    assert (await log_in(mailbox.client)).status_code == 200


async def test_response_to_a_login_does_not_tell_whether_a_registration_was_the_first(
    mailbox: Mailbox,
):
    """A stranger registers addresses with a password of his, and logs in with it."""
    user = UserCreate(**REGISTER)
    await UserService(mailbox.resources).create(user, Role.READER, verified=True)
    tried = []
    for email in (EMAIL, "nobody@example.com"):
        await register(mailbox.client, STRANGER | {"email": email})
        await mailbox.take()
        tried.append(await log_in(mailbox.client, STRANGER["password"], email))

    assert [is_unauthorized(response, invalid=False) for response in tried] == [True, True]
    bodies = [response.json() for response in tried]
    for body in bodies:
        del body["request_id"]
    assert bodies[0] == bodies[1]


async def test_passwords_of_an_unverified_account_count_as_guesses_right_or_wrong(
    settings: Settings, resources: Resources, tmp_path: Path
):
    """Else the limit would tell what the status does not."""
    limits = LimitsSettings(account_rate=1 / 3600, account_burst=2)
    limited = settings.model_copy(update={"limits": limits})
    async with open_resources(limited) as opened, client_of(create_app(limited), opened) as client:
        await register(client)
        await Mailbox(client, opened, tmp_path / "mail").take()
        logins = [await log_in(client) for _ in range(3)]

    assert [login.status_code for login in logins] == [401, 401, 429]


async def test_stranger_who_registers_first_neither_gets_in_nor_blocks_the_owner(mailbox: Mailbox):
    """The first registration keeps its password, which the owner does not know: he has it reset."""
    client = mailbox.client
    await register(client, STRANGER)
    [first] = await mailbox.take()
    await register(client)
    [second] = await mailbox.take()
    old = await verify(client, token_of(first), STRANGER["password"])
    not_known = await verify(client, token_of(second))
    stranger = await log_in(client, STRANGER["password"])
    token = await mailbox.token(RESET, email=EMAIL)
    reset = await client.post(CONFIRM_RESET, json={"token": token, "password": PASSWORD})

    assert (old.status_code, old.json()["errors"][0]["loc"]) == (422, ["body", "token"])
    assert not_known.json()["errors"][0]["loc"] == ["body", "password"]
    assert stranger.status_code == 401
    assert reset.status_code == 200
    assert (await log_in(client)).status_code == 200
    assert (await log_in(client, STRANGER["password"])).status_code == 401


async def test_fifty_registrations_of_an_address_at_once_make_one_account(
    mailbox: Mailbox, resources: Resources
):
    await asyncio.gather(*(register(mailbox.client) for _ in range(50)))
    mails = await mailbox.take()
    async with resources["sessions"].current() as session:
        count = await session.scalar(select(func.count()).select_from(User))
    tokens = [token_of(mail) for mail in mails]
    verified = [(await verify(mailbox.client, token)).status_code for token in tokens]

    assert (len(mails), count) == (50, 1)
    assert sorted(verified) == [200] + [422] * 49


async def test_registration_repeated_with_a_key_is_one_job(mailbox: Mailbox, resources: Resources):
    key = {"Idempotency-Key": "a key"}
    responses = [
        await mailbox.client.post("/v1/users", json=REGISTER, headers=key) for _ in range(2)
    ]
    entries = await waiting(resources)

    assert [response.json() for response in responses] == [ACCEPTED] * 2
    assert responses[1].headers["Idempotency-Replayed"] == "true"
    assert len(entries) == 1
    assert PASSWORD not in entries[0].payload


@pytest.mark.parametrize("field", ["email", "password"])
async def test_what_no_account_may_have_is_refused_at_once(mailbox: Mailbox, field: str):
    response = await mailbox.client.post("/v1/users", json=REGISTER | {field: "short"})

    assert response.status_code == 422
    assert response.json()["errors"][0]["loc"] == ["body", field]
    assert await mailbox.take() == []


async def test_account_from_before_can_log_in_once_it_is_verified(
    mailbox: Mailbox, resources: Resources
):
    """Of a time when USERS_VERIFY was off, or of `create-user`, which vouches for the address."""
    users = UserService(resources)
    await users.create(UserCreate(**REGISTER))
    operator: dict[str, Any] = REGISTER | {"email": "operator@example.com"}
    await users.create(UserCreate(**operator), verified=True)
    await mailbox.take()
    before = [await log_in(mailbox.client, email=each) for each in (EMAIL, operator["email"])]
    token = await mailbox.token("/v1/users/verify/resend", email=EMAIL)
    await verify(mailbox.client, token)

    assert [login.status_code for login in before] == [401, 200]
    assert (await log_in(mailbox.client)).status_code == 200


async def test_owner_who_resets_the_password_is_alone_in_an_account_from_before(
    mailbox: Mailbox, settings: Settings
):
    """A stranger has registered the address while USERS_VERIFY was off."""
    client = mailbox.client
    before = settings.model_copy(update={"users": UsersSettings(verify=False)})
    async with open_resources(before) as opened, client_of(create_app(before), opened) as earlier:
        await earlier.post("/v1/users", json=STRANGER)
        headers = bearing((await tokens_of(earlier, password=STRANGER["password"]))["access_token"])
        key = {"name": "A machine", "scopes": ["read", "write"]}
        made = await earlier.post("/v1/users/me/keys", json=key, headers=headers)
        proof = {"current_password": STRANGER["password"]}
        begun = await earlier.post("/v1/users/me/totp", json=proof, headers=headers)
        proof["otp"] = App(begun.json()["secret"]).code()
        enabled = await earlier.post("/v1/users/me/totp", json=proof, headers=headers)
    machine = {"X-API-Key": made.json()["key"]}
    cached = await client.get("/v1/users/me", headers=machine)
    await mailbox.take()
    token = await mailbox.token(RESET, email=EMAIL)
    reset = await client.post(CONFIRM_RESET, json={"token": token, "password": PASSWORD})
    strangers = [await client.get("/v1/users/me", headers=each) for each in (machine, headers)]
    login = await log_in(client)

    assert (enabled.status_code, cached.status_code, reset.status_code) == (200, 200, 200)
    assert [each.status_code for each in strangers] == [401, 401]
    assert reset.json()["totp"] is False
    assert login.status_code == 200
    token = await mailbox.token(RESET, email=EMAIL)
    owned = bearing(login.json()["access_token"])
    mine = await client.post("/v1/users/me/keys", json=key, headers=owned)
    await client.post(CONFIRM_RESET, json={"token": token, "password": "prometheus unbound"})
    kept = await client.get("/v1/users/me", headers={"X-API-Key": mine.json()["key"]})
    assert kept.status_code == 200
