"""One-time tokens of mails: what they are good for, once, and what makes them invalid."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import select, text, update

from app.models import OneTimeToken, User, UserSession
from app.schemas.user import Role
from app.services.accounts.users import UserService
from app.services.retention import RetentionService
from app.settings import Settings
from chassis.clock import now
from chassis.jobs.model import OutboxEntry
from chassis.limits.settings import LimitsSettings
from chassis.mail.settings import MailSettings
from chassis.resources import Resources, open_resources
from tests.account_mail import (
    ACCEPTED,
    CONFIRM_EMAIL,
    CONFIRM_RESET,
    EMAIL,
    RESEND,
    RESET,
    VERIFY,
    Mailbox,
    html_of,
    text_of,
    token_of,
)
from tests.conftest import client_of
from tests.databases import mariadb_only
from tests.jobs import waiting
from tests.logins import EMAIL as MARY
from tests.logins import PASSWORD, bearing, log_in, me, refresh, tokens_of
from tests.mail import SENDER, read_mail
from tests.process import TIMEOUT
from tests.service import create_app

NEW = "prometheus unbound"
NEW_ADDRESS = "shelley@example.com"
OTHER = {"email": "percy@example.com", "name": "Percy", "password": "ozymandias 1818"}


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    settings.mail = MailSettings(sender=SENDER, url=f"file://{tmp_path}/mail")
    settings.public_url = "https://shop.example"
    return settings


@pytest.fixture
def mailbox(
    client: httpx.AsyncClient, settings: Settings, resources: Resources, tmp_path: Path
) -> Mailbox:
    return Mailbox(client, resources, tmp_path / "mail")


@pytest.fixture
async def registered(user: dict[str, Any], mailbox: Mailbox) -> dict[str, Any]:
    """An account that is not verified; its welcome has been read."""
    await mailbox.take()
    return user


async def use(client: httpx.AsyncClient, path: str, token: str) -> httpx.Response:
    body = {"token": token}
    if path == VERIFY:
        body["password"] = PASSWORD
    if path == CONFIRM_RESET:
        body["password"] = NEW
    return await client.post(path, json=body)


async def ask(mailbox: Mailbox, path: str) -> str:
    """A token that `path` takes, of the account of Mary."""
    if path == VERIFY:
        return await mailbox.token(RESEND, email=MARY)
    if path == CONFIRM_RESET:
        return await mailbox.token(RESET, email=MARY)
    headers = bearing((await tokens_of(mailbox.client))["access_token"])
    body = {"email": NEW_ADDRESS, "current_password": PASSWORD}
    response = await mailbox.client.post(EMAIL, json=body, headers=headers)
    assert (response.status_code, response.json()) == (202, ACCEPTED)
    [mail] = await mailbox.take()
    assert mail["To"] == NEW_ADDRESS
    return token_of(mail)


def is_refused(response: httpx.Response) -> bool:
    """As any token that is not valid."""
    [error] = response.json()["errors"]
    assert error["msg"].startswith("Is not valid: it has expired, was used")
    return (response.status_code, error["loc"]) == (422, ["body", "token"])


async def account(resources: Resources) -> User:
    async with resources["sessions"].current() as session:
        return (await session.scalars(select(User).where(User.email != OTHER["email"]))).one()


EVERY = pytest.mark.parametrize("path", [VERIFY, CONFIRM_RESET, CONFIRM_EMAIL])


@EVERY
async def test_token_is_good_once(mailbox: Mailbox, registered: dict[str, Any], path: str):
    token = await ask(mailbox, path)
    first = await use(mailbox.client, path, token)
    second = await use(mailbox.client, path, token)

    assert first.status_code == 200, first.text
    assert first.json()["id"] == registered["id"]
    assert is_refused(second)
    assert (await account(mailbox.resources)).verified_at is not None


@EVERY
async def test_twenty_uses_at_once_have_one_effect(
    mailbox: Mailbox, registered: dict[str, Any], path: str, settings: Settings
):
    token = await ask(mailbox, path)
    uses = await asyncio.gather(*(use(mailbox.client, path, token) for _ in range(20)))

    assert sorted(response.status_code for response in uses) == [200] + [422] * 19
    assert all(is_refused(response) for response in uses if response.status_code == 422)
    changed = [mail for mail in await mailbox.take() if mail["To"] == MARY]
    assert len(changed) == (1 if path == CONFIRM_EMAIL else 0)


LOCK_WAITS = """
SELECT COUNT(*) FROM information_schema.innodb_trx
JOIN information_schema.processlist ON id = trx_mysql_thread_id
WHERE trx_state = 'LOCK WAIT' AND db = DATABASE()
"""


@mariadb_only
async def test_second_use_waits_for_the_first_and_is_refused(
    mailbox: Mailbox, registered: dict[str, Any]
):
    """Both begin while the account is locked: SQLite has one writer anyway."""
    token = await ask(mailbox, CONFIRM_EMAIL)
    sessions = mailbox.resources["sessions"]
    async with sessions.write.begin() as session, asyncio.timeout(TIMEOUT):
        await session.execute(select(User.id).with_for_update())
        uses = [asyncio.create_task(use(mailbox.client, CONFIRM_EMAIL, token)) for _ in range(2)]
        async with sessions.current() as watching:
            while await watching.scalar(text(LOCK_WAITS)) != 2:
                await asyncio.sleep(0.2)  # the table is renewed once nobody has read it for 0.1 s

    assert sorted(response.status_code for response in await asyncio.gather(*uses)) == [200, 422]


@EVERY
async def test_only_the_latest_token_of_a_purpose_is_good(
    mailbox: Mailbox, registered: dict[str, Any], path: str
):
    first = await ask(mailbox, path)
    second = await ask(mailbox, path)

    assert is_refused(await use(mailbox.client, path, first))
    assert (await use(mailbox.client, path, second)).status_code == 200


@EVERY
async def test_expired_token(mailbox: Mailbox, registered: dict[str, Any], path: str):
    token = await ask(mailbox, path)
    async with mailbox.resources["sessions"].write.begin() as session:
        await session.execute(update(OneTimeToken).values(expires_at=now() - timedelta(seconds=1)))

    assert is_refused(await use(mailbox.client, path, token))
    await RetentionService(mailbox.resources).clean()
    async with mailbox.resources["sessions"].current() as session:
        assert (await session.scalars(select(OneTimeToken))).all() == []


@EVERY
async def test_altered_tokens_and_those_of_another_purpose(
    mailbox: Mailbox, registered: dict[str, Any], path: str
):
    token = await ask(mailbox, path)
    others = {VERIFY, CONFIRM_RESET, CONFIRM_EMAIL} - {path}
    for altered in ("", "guess", token[:-1], token + "A", token.swapcase(), f" {token}"):
        assert is_refused(await use(mailbox.client, path, altered)), altered
    for other in others:
        assert is_refused(await use(mailbox.client, other, token)), other

    assert (await use(mailbox.client, path, token)).status_code == 200


async def rename(mailbox: Mailbox) -> None:
    headers = bearing((await tokens_of(mailbox.client))["access_token"])
    response = await mailbox.client.patch("/v1/users/me", json={"name": "M."}, headers=headers)
    assert response.status_code == 200


async def change_password(mailbox: Mailbox) -> None:
    headers = bearing((await tokens_of(mailbox.client))["access_token"])
    body = {"current_password": PASSWORD, "password": "a modern prometheus"}
    response = await mailbox.client.patch("/v1/users/me", json=body, headers=headers)
    assert response.status_code == 200


async def change_role(mailbox: Mailbox) -> None:
    await UserService(mailbox.resources).set_role(MARY, Role.EDITOR)


async def change_address(mailbox: Mailbox) -> None:
    async with mailbox.resources["sessions"].write.begin() as session:
        await session.execute(update(User).values(email="m@example.com"))


@EVERY
@pytest.mark.parametrize("change", [rename, change_password, change_role, change_address])
async def test_any_change_of_the_account_makes_a_token_invalid(
    mailbox: Mailbox,
    registered: dict[str, Any],
    path: str,
    change: Callable[[Mailbox], Awaitable[None]],
):
    token = await ask(mailbox, path)
    await change(mailbox)

    assert is_refused(await use(mailbox.client, path, token))


async def test_token_of_one_account_changes_no_other(mailbox: Mailbox, registered: dict[str, Any]):
    await mailbox.client.post("/v1/users", json=OTHER)
    await mailbox.take()
    token = await mailbox.token(RESET, email=OTHER["email"])
    response = await use(mailbox.client, CONFIRM_RESET, token)

    assert response.json()["email"] == OTHER["email"]
    assert (await log_in(mailbox.client)).status_code == 200
    assert (await log_in(mailbox.client, NEW)).status_code == 401
    assert (await log_in(mailbox.client, NEW, OTHER["email"])).status_code == 200


async def test_no_token_is_at_rest_in_plain_text(mailbox: Mailbox, registered: dict[str, Any]):
    """Neither before its mail is sent, when it is in no outbox, nor after that."""
    await mailbox.client.post(RESET, json={"email": MARY})
    [entry] = await waiting(mailbox.resources)
    [mail] = await mailbox.take()
    token = token_of(mail)
    async with mailbox.resources["sessions"].current() as session:
        row = (await session.scalars(select(OneTimeToken))).one()

    assert entry.payload == f'{{"email":"{MARY}"}}'
    assert len(token) == 43
    assert token not in str(vars(row))
    assert token not in mail["Message-ID"]


async def test_reset_ends_all_sessions_at_once(mailbox: Mailbox, registered: dict[str, Any]):
    client = mailbox.client
    logins = [await tokens_of(client) for _ in range(2)]
    assert (await me(client, logins[0]["access_token"])).status_code == 200  # it is cached now
    token = await ask(mailbox, CONFIRM_RESET)
    await use(client, CONFIRM_RESET, token)

    for login in logins:
        assert (await me(client, login["access_token"])).status_code == 401
        assert (await refresh(client, login["refresh_token"])).status_code == 401
    assert (await log_in(client)).status_code == 401
    assert (await log_in(client, NEW)).status_code == 200


@pytest.mark.parametrize("password", ["short", MARY, "password1234"])
async def test_weak_password_does_not_use_the_token_up(
    mailbox: Mailbox, registered: dict[str, Any], password: str
):
    token = await ask(mailbox, CONFIRM_RESET)
    body = {"token": token, "password": password}
    weak = await mailbox.client.post(CONFIRM_RESET, json=body)

    assert (weak.status_code, weak.json()["errors"][0]["loc"]) == (422, ["body", "password"])
    assert (await use(mailbox.client, CONFIRM_RESET, token)).status_code == 200


async def test_invalid_token_costs_no_hash(
    mailbox: Mailbox, registered: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(mailbox.resources["passwords"], "max_waiting", 0)  # each hash is a 503

    for path in (VERIFY, CONFIRM_RESET):
        assert is_refused(await use(mailbox.client, path, "guess"))


async def test_repeated_confirmation_with_a_key_is_replayed(
    mailbox: Mailbox, registered: dict[str, Any]
):
    body = {"token": await ask(mailbox, CONFIRM_RESET), "password": NEW}
    key = {"Idempotency-Key": "a key"}
    first, second = [
        await mailbox.client.post(CONFIRM_RESET, json=body, headers=key) for _ in range(2)
    ]

    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json()
    assert second.headers["Idempotency-Replayed"] == "true"


async def test_verification_needs_the_password_of_the_registration(
    mailbox: Mailbox, registered: dict[str, Any]
):
    """The reader of a mail must not open an account with the password of a stranger."""
    token = await ask(mailbox, VERIFY)
    body = {"token": token, "password": "a guess of somebody"}
    wrong = await mailbox.client.post(VERIFY, json=body)

    assert (wrong.status_code, wrong.json()["errors"][0]["loc"]) == (422, ["body", "password"])
    assert (await account(mailbox.resources)).verified_at is None
    assert (await use(mailbox.client, VERIFY, token)).status_code == 200


async def test_new_address_is_that_of_the_account_once_it_is_confirmed(
    mailbox: Mailbox, registered: dict[str, Any]
):
    client = mailbox.client
    access = (await tokens_of(client))["access_token"]
    token = await ask(mailbox, CONFIRM_EMAIL)
    before = (await me(client, access)).json()["email"]
    confirmed = await use(client, CONFIRM_EMAIL, token)
    after = (await me(client, access)).json()["email"]
    [note] = await mailbox.take()

    assert (before, after, confirmed.json()["email"]) == (MARY, NEW_ADDRESS, NEW_ADDRESS)
    assert (note["To"], "another e-mail address" in text_of(note)) == (MARY, True)
    assert NEW_ADDRESS not in str(note)
    assert (await log_in(client, email=NEW_ADDRESS)).status_code == 200
    assert (await log_in(client)).status_code == 401


async def test_change_of_address_needs_a_login_and_the_password(
    mailbox: Mailbox, registered: dict[str, Any]
):
    headers = bearing((await tokens_of(mailbox.client))["access_token"])
    body = {"email": NEW_ADDRESS, "current_password": PASSWORD}
    anonymous = await mailbox.client.post(EMAIL, json=body)
    wrong = await mailbox.client.post(
        EMAIL, json=body | {"current_password": "a guess"}, headers=headers
    )
    same = await mailbox.client.post(EMAIL, json=body | {"email": MARY}, headers=headers)

    assert anonymous.status_code == 401
    assert wrong.json()["errors"][0]["loc"] == ["body", "current_password"]
    assert same.json()["errors"][0]["loc"] == ["body", "email"]
    assert await mailbox.take() == []


async def test_new_address_of_another_account_is_told_by_mail_alone(
    mailbox: Mailbox, registered: dict[str, Any]
):
    await mailbox.client.post("/v1/users", json=OTHER)
    headers = bearing((await tokens_of(mailbox.client))["access_token"])
    await mailbox.take()
    body = {"email": OTHER["email"], "current_password": PASSWORD}
    response = await mailbox.client.post(EMAIL, json=body, headers=headers)
    [mail] = await mailbox.take()

    assert (response.status_code, response.json()) == (202, ACCEPTED)
    assert mail["To"] == OTHER["email"]
    assert "There is an account with it already" in " ".join(text_of(mail).split())
    assert "#token=" not in str(mail)


async def test_address_that_another_account_got_meanwhile_is_a_conflict(
    mailbox: Mailbox, registered: dict[str, Any]
):
    token = await ask(mailbox, CONFIRM_EMAIL)
    made = await mailbox.client.post("/v1/users", json=OTHER | {"email": NEW_ADDRESS})
    refused = await use(mailbox.client, CONFIRM_EMAIL, token)

    assert made.status_code == 201
    assert refused.status_code == 409
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert (await log_in(mailbox.client)).status_code == 200


async def test_change_asked_for_before_another_change_of_the_account_mails_nothing(
    mailbox: Mailbox, registered: dict[str, Any]
):
    """As if a thief had asked, and the owner had changed the password before the job was run."""
    headers = bearing((await tokens_of(mailbox.client))["access_token"])
    body = {"email": NEW_ADDRESS, "current_password": PASSWORD}
    await mailbox.client.post(EMAIL, json=body, headers=headers)
    await change_password(mailbox)

    assert await mailbox.take() == []


@pytest.mark.parametrize("path", [RESET, RESEND])
async def test_unknown_address_gets_the_same_response_and_no_mail(
    mailbox: Mailbox, registered: dict[str, Any], path: str
):
    known = await mailbox.client.post(path, json={"email": MARY})
    [mail] = await mailbox.take()
    unknown = await mailbox.client.post(path, json={"email": "nobody@example.com"})

    assert mail["To"] == MARY
    assert (known.status_code, known.json()) == (202, ACCEPTED)
    assert (unknown.status_code, unknown.content) == (202, known.content)
    volatile = {"x-request-id", "x-process-time", "server-timing", "date"}
    shown = [
        {name: value for name, value in response.headers.items() if name not in volatile}
        for response in (known, unknown)
    ]
    assert shown[0] == shown[1]
    assert await mailbox.take() == []


async def test_verified_account_gets_no_other_mail_to_verify(
    mailbox: Mailbox, registered: dict[str, Any]
):
    await use(mailbox.client, VERIFY, await ask(mailbox, VERIFY))
    again = await mailbox.client.post(RESEND, json={"email": MARY})

    assert (again.status_code, again.json()) == (202, ACCEPTED)
    assert await mailbox.take() == []


async def test_nobody_can_flood_a_mailbox(
    settings: Settings, resources: Resources, tmp_path: Path, user: dict[str, Any]
):
    """From ever new networks; another address has a bucket of its own, and a known one no other."""
    limits = LimitsSettings(mails_rate=1 / 3600, mails_burst=2)
    limited = settings.model_copy(update={"limits": limits})
    app = create_app(limited)
    responses: list[httpx.Response] = []
    async with open_resources(limited) as opened:
        for number in range(5):
            async with client_of(app, opened, f"198.51.100.{number}") as client:
                for email in (MARY, "nobody@example.com"):
                    for path in (RESET, RESEND):
                        responses.append(await client.post(path, json={"email": email}))
        entries = await waiting(opened)

    assert {(each.status_code, each.content) for each in responses} == {(202, responses[0].content)}
    written = [entry.payload for entry in entries if entry.job != "send_welcome"]
    assert [MARY in payload for payload in written] == [True, True, False, False]


async def test_one_network_can_ask_so_many_times_and_guess_as_often(
    settings: Settings, resources: Resources
):
    limited = settings.model_copy(
        update={"limits": LimitsSettings(login_rate=1 / 3600, login_burst=5)}
    )
    async with open_resources(limited) as opened, client_of(create_app(limited), opened) as client:
        asked = [
            await client.post(RESET, json={"email": f"{number}@example.com"}) for number in range(3)
        ]
        guesses = [await use(client, CONFIRM_RESET, f"guess {number}") for number in range(4)]

    assert [each.status_code for each in asked] == [202] * 3
    assert [each.status_code for each in guesses] == [422, 422, 429, 429]


async def test_second_attempt_of_a_job_replaces_the_token_of_the_first(
    mailbox: Mailbox, registered: dict[str, Any]
):
    """As after a worker that died between the mail and the deletion of the row."""
    await mailbox.client.post(RESET, json={"email": MARY})
    [entry] = await waiting(mailbox.resources)
    values = {each.name: getattr(entry, each.name) for each in OutboxEntry.__table__.columns}
    [first] = await mailbox.take()
    async with mailbox.resources["sessions"].write.begin() as session:
        session.add(OutboxEntry(**values))
    [second] = await mailbox.take()

    assert first["Message-ID"] != second["Message-ID"]
    assert is_refused(await use(mailbox.client, CONFIRM_RESET, token_of(first)))
    assert (await use(mailbox.client, CONFIRM_RESET, token_of(second))).status_code == 200


@EVERY
async def test_mail_has_the_link_in_text_and_html(
    mailbox: Mailbox, registered: dict[str, Any], path: str
):
    token = await ask(mailbox, path)
    page = {VERIFY: "verify", CONFIRM_RESET: "reset-password", CONFIRM_EMAIL: "confirm-email"}
    link = f"https://shop.example/{page[path]}#token={token}"
    [found] = [mail for mail in read_mail(mailbox.folder) if link in text_of(mail)]
    html = html_of(found)
    assert html.count(link) == 3  # of the button, of the line below it, and as it is read
    assert "prefers-color-scheme: dark" in html
    assert "Mary" not in html + text_of(found)
    assert ("1 hour" if path == CONFIRM_RESET else "24 hours") in text_of(found)


@EVERY
async def test_uses_and_refusals_are_security_events(
    mailbox: Mailbox, registered: dict[str, Any], path: str, caplog: pytest.LogCaptureFixture
):
    token = await ask(mailbox, path)
    caplog.set_level(logging.INFO, "app.security")
    caplog.clear()
    for _ in range(2):
        await use(mailbox.client, path, token)

    name = {
        VERIFY: "address_verified",
        CONFIRM_RESET: "password_reset",
        CONFIRM_EMAIL: "address_changed",
    }
    records = [vars(each) for each in caplog.records if each.name == "app.security"]
    events = [(each["event"], each.get("account")) for each in records]
    assert events == [(name[path], registered["id"]), ("mail_token_refused", None)]
    assert token not in str(records)


async def test_sessions_of_others_stay_as_they_are(mailbox: Mailbox, registered: dict[str, Any]):
    await mailbox.client.post("/v1/users", json=OTHER)
    await mailbox.take()
    login = await tokens_of(mailbox.client, email=OTHER["email"], password=OTHER["password"])
    await use(mailbox.client, CONFIRM_RESET, await ask(mailbox, CONFIRM_RESET))

    assert (await me(mailbox.client, login["access_token"])).status_code == 200
    async with mailbox.resources["sessions"].current() as session:
        assert len((await session.scalars(select(UserSession))).all()) == 1
