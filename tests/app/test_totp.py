"""The second factor of an account: codes of an authenticator app, and recovery codes."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import httpx2 as httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, update

from app.about import TITLE
from app.logins.password_throttle import PasswordThrottle
from app.main import create_app
from app.models import RecoveryCode, TotpSecret
from app.schemas.user import Role
from app.services.accounts.deletion import DeletionService
from app.services.accounts.totp import RECOVERY_CODES
from app.services.accounts.users import UserService
from app.settings import Settings
from chassis.auth.settings import DEVELOPMENT_KEY
from chassis.limits.settings import LimitsSettings
from chassis.mail.settings import MailSettings
from chassis.resources import Resources, open_resources
from tests.account_mail import CONFIRM_RESET, RESET, Mailbox, text_of
from tests.accounts import KEY, account_headers
from tests.authenticator import STEP, App, hotp
from tests.command import run
from tests.conftest import client_of
from tests.databases import sqlite_only
from tests.logins import EMAIL, PASSWORD, REGISTER, bearing, is_unauthorized, me, tokens_of
from tests.mail import SENDER
from tests.metrics import scrape, total

URL = "/v1/users/me/totp"
REQUIRED = "urn:problem-type:otp-required"
REFUSED = "urn:problem-type:otp-refused"
SLOW = 1 / 3600  # one an hour: nothing comes back while a test runs
WRONG = "000000"


def test_app_of_these_tests_is_that_of_the_rfc():
    """RFC 6238, appendix B."""
    times = {59: "287082", 1111111109: "081804", 20000000000: "353130"}

    assert {time: hotp(b"12345678901234567890", time // STEP) for time in times} == times


class Owner:
    """The account, logged in before it had a second factor."""

    def __init__(self, client: httpx.AsyncClient, resources: Resources, token: str) -> None:
        self.client = client
        self.resources = resources
        self.headers = bearing(token)

    async def post(self, password: str = PASSWORD, **more: Any) -> httpx.Response:
        body = {"current_password": password, **more}
        return await self.client.post(URL, json=body, headers=self.headers)

    async def delete(self, otp: str, password: str = PASSWORD) -> httpx.Response:
        body = {"current_password": password, "otp": otp}
        return await self.client.request("DELETE", URL, json=body, headers=self.headers)

    async def begin(self) -> App:
        response = await self.post()
        assert response.status_code == 202, response.text
        return App(response.json()["secret"])

    async def enable(self) -> tuple[App, list[str]]:
        """As if that had been a while ago: the code of now is still good."""
        app = await self.begin()
        response = await self.post(otp=app.code())
        assert response.status_code == 200, response.text
        await self.age()
        codes: list[str] = response.json()["recovery_codes"]
        return app, codes

    async def age(self) -> None:
        async with self.resources["sessions"].write.begin() as session:
            await session.execute(update(TotpSecret).values(used_step=TotpSecret.used_step - 10))


async def log_in(
    client: httpx.AsyncClient, otp: str | None = None, password: str = PASSWORD, **headers: str
) -> httpx.Response:
    form = {"grant_type": "password", "username": EMAIL, "password": password}
    form |= {} if otp is None else {"otp": otp}
    return await client.post("/v1/tokens", data=form, headers=headers)


def refused(response: httpx.Response) -> str:
    """The type of the problem."""
    assert is_unauthorized(response, invalid=False), response.text
    return str(response.json()["type"])


def fault(response: httpx.Response) -> list[str]:
    assert response.status_code == 422, response.text
    [error] = response.json()["errors"]
    return list(error["loc"])


async def counts(resources: Resources) -> list[int]:
    async with resources["sessions"].current() as session:
        return [
            await session.scalar(select(func.count()).select_from(model)) or 0
            for model in (TotpSecret, RecoveryCode)
        ]


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    settings.mail = MailSettings(sender=SENDER, url=f"file://{tmp_path}/mail")
    return settings


@pytest.fixture
async def owner(client: httpx.AsyncClient, user: dict[str, Any], resources: Resources) -> Owner:
    return Owner(client, resources, (await tokens_of(client))["access_token"])


async def test_secret_is_in_force_once_a_code_confirms_it(
    client: httpx.AsyncClient, owner: Owner, user: dict[str, Any]
):
    begun = await owner.post()
    app = App(begun.json()["secret"])
    pending = (await log_in(client), await client.get("/v1/users/me", headers=owner.headers))
    wrong = await owner.post(otp=app.wrong())
    enabled = await owner.post(otp=app.code())
    shown = await client.get("/v1/users/me", headers=owner.headers)
    codes = enabled.json()["recovery_codes"]

    uri = urlsplit(begun.json()["uri"])
    assert (uri.scheme, uri.netloc, unquote(uri.path)) == ("otpauth", "totp", f"/{TITLE}:{EMAIL}")
    assert {name: value for name, [value] in parse_qs(uri.query).items()} == {
        "secret": begun.json()["secret"],
        "issuer": TITLE,
        "algorithm": "SHA1",
        "digits": "6",
        "period": "30",
    }
    assert (begun.status_code, enabled.status_code) == (202, 200)
    assert [each.status_code for each in pending] == [200, 200]
    assert fault(wrong) == ["body", "otp"]
    assert pending[1].json() == {**user, "totp": False}
    assert shown.json() == {**user, "totp": True}
    assert len({*codes}) == RECOVERY_CODES
    for response in (begun, enabled):
        assert "no-store" in response.headers["Cache-Control"]
    assert refused(await log_in(client)) == REQUIRED


async def test_login_needs_the_password_and_a_code(client: httpx.AsyncClient, owner: Owner):
    app, _ = await owner.enable()

    for otp in (None, ""):
        assert refused(await log_in(client, otp)) == REQUIRED
    for otp in (app.wrong(), app.code(-4), app.code(4), " ", "12345", "１２３４５６", "A" * 16):
        assert refused(await log_in(client, otp)) == REFUSED, otp
    code = app.code()
    accepted = await log_in(client, f"{code[:3]} {code[3:]}")
    assert accepted.status_code == 200, accepted.text
    assert (await me(client, accepted.json()["access_token"])).status_code == 200
    long = await log_in(client, "1" * 41)
    assert fault(long) == ["body", "otp"]


async def test_who_does_not_know_the_password_learns_nothing(
    client: httpx.AsyncClient, user: dict[str, Any], owner: Owner
):
    before = await log_in(client, password="a guess")
    app, codes = await owner.enable()
    after = [await log_in(client, otp, password="a guess") for otp in (None, app.code(), codes[0])]

    fields = ("type", "title", "status", "detail")
    [shown] = {tuple(each.json()[name] for name in fields) for each in (before, *after)}
    assert shown[0] == "about:blank"
    assert (await log_in(client, codes[0])).status_code == 200  # it was not used up
    assert (await log_in(client, app.code())).status_code == 200


async def test_account_without_a_second_factor_ignores_a_code(
    client: httpx.AsyncClient, user: dict[str, Any]
):
    assert (await log_in(client, WRONG)).status_code == 200


async def test_code_is_good_once(client: httpx.AsyncClient, owner: Owner):
    """Whichever request has used it, and none of the steps before it after that."""
    app = await owner.begin()
    code = app.code()
    enabled = await owner.post(otp=code)
    again = await log_in(client, code)
    await owner.age()
    first, second, before = [await log_in(client, app.code(step)) for step in (1, 1, 0)]

    assert enabled.status_code == 200
    assert first.status_code == 200
    assert [refused(each) for each in (again, second, before)] == [REFUSED] * 3


@pytest.mark.parametrize("kind", ["totp", "recovery"])
async def test_of_simultaneous_logins_with_one_code_one_succeeds(
    client: httpx.AsyncClient, owner: Owner, settings: Settings, kind: str
):
    """On two workers."""
    app, codes = await owner.enable()
    code = app.code() if kind == "totp" else codes[0]
    async with (
        open_resources(settings) as others,
        client_of(create_app(settings), others) as elsewhere,
    ):
        logins = [log_in(each, code) for _ in range(5) for each in (client, elsewhere)]
        responses = await asyncio.gather(*logins)

    assert sorted(each.status_code for each in responses) == [200] + [401] * 9
    assert {refused(each) for each in responses if each.status_code == 401} == {REFUSED}


async def test_recovery_code_is_good_once_however_it_is_typed(
    client: httpx.AsyncClient, owner: Owner
):
    _, codes = await owner.enable()
    typed = [
        codes[0],
        codes[1].lower(),
        f" {codes[2].replace('-', ' ')} ",
        codes[3].replace("-", ""),
    ]
    first = [await log_in(client, otp) for otp in typed]
    second = [await log_in(client, code) for code in codes[:4]]

    assert [each.status_code for each in first] == [200] * 4
    assert [refused(each) for each in second] == [REFUSED] * 4
    assert await counts(owner.resources) == [1, RECOVERY_CODES - 4]


async def test_codes_of_another_account_are_none(client: httpx.AsyncClient, owner: Owner):
    other = {"email": "percy@example.com", "name": "Percy", "password": "ozymandias 1818"}
    await client.post("/v1/users", json=other)
    tokens = await tokens_of(client, email=other["email"], password=other["password"])
    theirs = Owner(client, owner.resources, tokens["access_token"])
    begun = await theirs.post(other["password"])
    app = App(begun.json()["secret"])
    codes = (await theirs.post(other["password"], otp=app.code())).json()["recovery_codes"]
    await owner.enable()

    for code in (app.code(), app.code(1), codes[0]):
        assert refused(await log_in(client, code)) == REFUSED


async def test_copy_of_the_database_gives_no_second_factor(owner: Owner):
    app, codes = await owner.enable()
    async with owner.resources["sessions"].current() as session:
        rows = [
            *(await session.execute(select(TotpSecret.__table__))).all(),
            *(await session.execute(select(RecoveryCode.__table__))).all(),
        ]
    stored = "\n".join(f"{row}" for row in rows)

    secrets = [base64.b32encode(app.key), base64.b64encode(app.key), app.key.hex().encode()]
    for secret in secrets + [code.replace("-", "").encode() for code in codes]:
        assert secret.decode() not in stored


async def test_next_request_on_every_worker_knows(
    client: httpx.AsyncClient, owner: Owner, settings: Settings
):
    async with (
        open_resources(settings) as others,
        client_of(create_app(settings), others) as elsewhere,
    ):

        async def seen() -> tuple[bool, int]:
            shown = await elsewhere.get("/v1/users/me", headers=owner.headers)
            return shown.json()["totp"], (await log_in(elsewhere)).status_code

        before = await seen()
        app, _ = await owner.enable()
        enabled = await seen()
        await owner.delete(app.code())
        disabled = await seen()

    assert (before, enabled, disabled) == ((False, 200), (True, 401), (False, 200))


async def test_new_secret_replaces_one_that_is_not_confirmed(owner: Owner):
    first, second = await owner.begin(), await owner.begin()

    assert fault(await owner.post(otp=first.code())) == ["body", "otp"]
    assert (await owner.post(otp=second.code())).status_code == 200


async def test_there_is_one_second_factor_and_it_begins_with_a_secret(owner: Owner):
    early = await owner.post(otp=WRONG)
    none = await owner.delete(WRONG)
    app, codes = await owner.enable()
    twice = [await owner.post(), await owner.post(otp=app.code())]

    assert (early.status_code, none.status_code) == (409, 404)
    assert [each.status_code for each in twice] == [409, 409]
    assert (await log_in(owner.client, codes[0])).status_code == 200


async def test_of_simultaneous_confirmations_one_has_an_effect(owner: Owner):
    app = await owner.begin()
    responses = await asyncio.gather(*(owner.post(otp=app.code()) for _ in range(5)))
    [enabled] = [each for each in responses if each.status_code == 200]

    assert sorted(each.status_code for each in responses) == [200] + [409] * 4
    code = enabled.json()["recovery_codes"][0]
    assert (await log_in(owner.client, code)).status_code == 200


@pytest.mark.parametrize("by", ["app", "recovery code"])
async def test_turning_it_off_needs_the_password_and_a_code(
    client: httpx.AsyncClient, owner: Owner, by: str
):
    app, codes = await owner.enable()
    wrong_password = [await owner.post("a guess"), await owner.delete(app.code(), "a guess")]
    wrong_otp = [await owner.delete(otp) for otp in (app.wrong(), "A" * 16, "")]
    needed = await log_in(client)
    off = await owner.delete(app.code() if by == "app" else codes[0])

    assert [fault(each) for each in wrong_password] == [["body", "current_password"]] * 2
    assert [fault(each) for each in wrong_otp] == [["body", "otp"]] * 3
    assert refused(needed) == REQUIRED
    assert (off.status_code, off.content) == (204, b"")
    assert await counts(owner.resources) == [0, 0]
    assert (await log_in(client)).status_code == 200
    again, _ = await owner.enable()
    assert again.key != app.key
    assert (await log_in(client, again.code())).status_code == 200


async def test_api_key_and_nobody_cannot_change_it(client: httpx.AsyncClient, owner: Owner):
    body = {"name": "A machine", "scopes": ["read", "write"]}
    made = await client.post("/v1/users/me/keys", json=body, headers=owner.headers)
    key = {"X-API-Key": made.json()["key"]}
    app, _ = await owner.enable()
    proofs = {"current_password": PASSWORD, "otp": app.code()}

    for method in ("POST", "DELETE"):
        by_key = await client.request(method, URL, json=proofs, headers=key)
        by_nobody = await client.request(method, URL, json=proofs)
        assert by_key.status_code == 403
        assert is_unauthorized(by_nobody, invalid=False)


async def test_repeated_requests_with_an_idempotency_key_get_the_same_response(owner: Owner):
    """Their codes have been used, by themselves."""
    app = await owner.begin()
    owner.headers["Idempotency-Key"] = "enable"
    code = app.code()
    enabled = [await owner.post(otp=code) for _ in range(2)]
    recovery = enabled[0].json()["recovery_codes"][0]
    logins = [
        await log_in(owner.client, recovery, **{"Idempotency-Key": "log in"}) for _ in range(2)
    ]

    for first, second in (enabled, logins):
        assert (first.status_code, second.status_code) == (200, 200)
        assert second.content == first.content
        assert second.headers["Idempotency-Replayed"] == "true"
    assert refused(await log_in(owner.client, recovery)) == REFUSED


Guess = Callable[[int, str | None], Awaitable[int]]


@pytest.fixture
async def guess(settings: Settings, owner: Owner) -> Guess:
    """Log in from a network; the account has logged in from 127.0.0.1."""
    settings = settings.model_copy(
        update={
            "limits": LimitsSettings(
                login_rate=SLOW,
                login_burst=30,
                account_rate=SLOW,
                account_burst=8,
                otp_rate=SLOW,
                otp_burst=3,
            )
        }
    )
    app = create_app(settings)

    async def log_in_from(network: int, otp: str | None, password: str = PASSWORD) -> int:
        address = "127.0.0.1" if network == 0 else f"198.51.100.{network}"
        async with (
            open_resources(settings) as resources,
            client_of(app, resources, address) as client,
        ):
            return (await log_in(client, otp, password)).status_code

    return log_in_from


async def test_wrong_codes_are_limited_and_lock_nobody_out_where_he_logs_in(
    owner: Owner, guess: Guess
):
    """From ever new networks, over all of them; a known network has a limit of its own."""
    app, _ = await owner.enable()
    guesses = [await guess(10 + number, app.wrong()) for number in range(5)]
    right = await guess(20, app.code())
    at_home = await guess(0, app.code())
    slips = [await guess(0, app.wrong()) for _ in range(4)]
    asked = await guess(20, None)

    assert guesses == [401] * 3 + [429] * 2
    assert right == 429
    assert at_home == 200
    assert slips == [401] * 3 + [429]
    assert asked == 401  # for the code, which tells nothing new


async def test_wrong_codes_count_as_wrong_passwords_and_codes_that_are_right_do_not(
    owner: Owner, guess: Callable[..., Awaitable[int]]
):
    app, codes = await owner.enable()
    right = [await guess(30 + number, code) for number, code in enumerate(codes)]
    wrong = [await guess(60 + number, app.wrong()) for number in range(2)]
    passwords = [await guess(70 + number, None, "a guess") for number in range(7)]

    assert right == [200] * len(codes)
    assert wrong == [401] * 2
    assert passwords == [401] * 6 + [429]  # eight wrong ones together


async def test_limit_of_codes_needs_the_password(
    owner: Owner, guess: Callable[..., Awaitable[int]]
):
    app, _ = await owner.enable()
    strangers = [await guess(10 + number, app.wrong(), "a guess") for number in range(5)]
    slips = [await guess(50, app.wrong()) for _ in range(3)]

    assert strangers == [401] * 5
    assert slips == [401] * 3


async def test_simultaneous_guesses_are_no_more(owner: Owner, guess: Guess):
    app, _ = await owner.enable()
    guesses = await asyncio.gather(*(guess(10 + number, app.wrong()) for number in range(8)))

    assert sorted(guesses) == [401] * 3 + [429] * 5


async def test_codes_of_changes_count_too(settings: Settings, owner: Owner):
    app, _ = await owner.enable()
    limits = LimitsSettings(otp_rate=SLOW, otp_burst=2)
    limited = settings.model_copy(update={"limits": limits})
    async with open_resources(limited) as opened, client_of(create_app(limited), opened) as client:
        mine = Owner(client, opened, owner.headers["Authorization"][7:])
        changes = [(await mine.delete(app.wrong())).status_code for _ in range(3)]
        login = await log_in(client, app.code())

    assert changes == [422, 422, 429]
    assert login.status_code == 429


async def test_changes_and_guesses_are_events_without_secrets(
    client: httpx.AsyncClient, user: dict[str, Any], owner: Owner
):
    before = await scrape(client)
    app, codes = await owner.enable()
    await log_in(client, app.wrong())
    await log_in(client, codes[0])
    exported = await client.get("/v1/users/me/export", headers=owner.headers)
    await owner.delete(codes[1])
    after = await scrape(client)
    admin = await account_headers(Role.ADMIN, owner.resources)
    query = {"account_id": user["id"]}
    log = (await client.get("/v1/audit", params=query, headers=admin)).json()["items"]

    name = "security_events_total"
    events = ("totp_enabled", "totp_disabled", "recovery_code_used", "otp_refused")
    counted = {
        event: total(after, name, event=event) - total(before, name, event=event)
        for event in events
    }
    assert counted == dict(zip(events, (1, 1, 2, 1), strict=True))
    shown = [(each["event"], each["details"]) for each in reversed(log)][2:]
    assert sorted(shown, key=str) == sorted(
        [
            ("totp_enabled", {}),
            ("recovery_code_used", {"left": "9"}),
            ("login", {}),
            ("recovery_code_used", {"left": "8"}),
            ("totp_disabled", {}),
        ],
        key=str,
    )
    assert exported.json()["account"] == {**user, "totp": True}
    secret = base64.b32encode(app.key).decode()
    for code in (secret, *codes):
        assert code not in exported.text
        assert code not in f"{log}"


async def test_owner_gets_a_mail_about_each_change(owner: Owner, tmp_path: Path):
    mailbox = Mailbox(owner.client, owner.resources, tmp_path / "mail")
    await mailbox.take()
    app = await owner.begin()
    begun = await mailbox.take()
    await owner.post(otp=app.code())
    [enabled] = await mailbox.take()
    await owner.age()
    await owner.delete(app.code())
    [disabled] = await mailbox.take()

    assert begun == []
    for mail, change in ((enabled, "on"), (disabled, "off")):
        assert mail["To"] == EMAIL
        assert mail["Subject"] == f"{TITLE}: The second factor of your account was turned {change}"
        assert f"turned {change}." in text_of(mail)


async def test_new_password_by_mail_leaves_it(owner: Owner, tmp_path: Path):
    mailbox = Mailbox(owner.client, owner.resources, tmp_path / "mail")
    app, _ = await owner.enable()
    await mailbox.take()
    body = {"token": await mailbox.token(RESET, email=EMAIL), "password": "prometheus unbound"}
    reset = await owner.client.post(CONFIRM_RESET, json=body)
    without = await log_in(owner.client, password=body["password"])
    with_code = await log_in(owner.client, app.code(), body["password"])

    assert reset.json()["totp"] is True
    assert refused(without) == REQUIRED
    assert with_code.status_code == 200


async def test_deleted_account_leaves_nothing(
    client: httpx.AsyncClient, owner: Owner, resources: Resources
):
    """At once: what follows the response is another part."""
    await owner.enable()
    claims = resources["access_tokens"].read(owner.headers["Authorization"][7:])
    account = await UserService(resources).of_session(*claims)
    throttle = PasswordThrottle(resources, "127.0.0.1")
    await DeletionService(resources).delete(account, PASSWORD, throttle)
    left = await counts(resources)
    made = await client.post("/v1/users", json=REGISTER)

    assert left == [0, 0]
    assert made.json()["totp"] is False
    assert (await log_in(client)).status_code == 200


def with_keys(settings: Settings, key: str, *old: str) -> Settings:
    changed = settings.model_copy(deep=True)
    changed.tokens.key = SecretStr(key)
    changed.tokens.old_keys = SecretStr(",".join(old)) if old else None
    return changed


async def test_new_key_reads_what_the_old_one_has_encrypted(settings: Settings, owner: Owner):
    """A login encrypts its secret anew; without the old key a recovery code is left."""
    app, codes = await owner.enable()

    new = "a new key " * 4

    async def log_in_with(*keys: str, otp: str) -> int:
        changed = with_keys(settings, *keys)
        async with (
            open_resources(changed) as opened,
            client_of(create_app(changed), opened) as client,
        ):
            return (await log_in(client, otp)).status_code

    lost = await log_in_with(new, otp=app.code())
    recovered = await log_in_with(new, otp=codes[0])
    both = await log_in_with(new, KEY, otp=app.code())
    await owner.age()
    later = await log_in_with(new, otp=app.code())

    assert (lost, recovered, both, later) == (401, 200, 200, 200)


@sqlite_only
async def test_command_encrypts_all_secrets_anew(
    owner: Owner, environment: dict[str, Any], settings: Settings, tmp_path: Path
):
    app, _ = await owner.enable()
    new, other = "a new key " * 4, "another key " * 4

    def renew(**keys: str) -> tuple[int, str, str]:
        return run(tmp_path, "renew-totp", **environment | keys)

    unread = renew(TOKENS_KEY=other)
    renewed = renew(TOKENS_KEY=new, TOKENS_OLD_KEYS=KEY)
    published = renew(TOKENS_KEY=DEVELOPMENT_KEY)
    changed = with_keys(settings, new)
    async with open_resources(changed) as opened, client_of(create_app(changed), opened) as client:
        login = await log_in(client, app.code())

    assert unread[0] == 1
    assert "1 were encrypted with a key that is not in TOKENS_OLD_KEYS" in unread[2]
    assert renewed[0] == 0, renewed[2]
    assert "1 secrets are encrypted with TOKENS_KEY" in renewed[1]
    assert published[0] == 1
    assert "TOKENS_KEY" in published[2]
    assert login.status_code == 200


async def test_operator_turns_it_off_for_one_who_has_lost_all(
    client: httpx.AsyncClient, owner: Owner, environment: dict[str, Any], tmp_path: Path
):
    shown = await client.get("/v1/users/me", headers=owner.headers)
    await owner.enable()
    environment |= {"CACHE_NAMESPACE": owner.resources["settings"].cache.namespace}
    code, output, errors = run(tmp_path, "reset-totp", EMAIL, **environment)
    after = await client.get("/v1/users/me", headers=owner.headers)
    again = run(tmp_path, "reset-totp", EMAIL, **environment)
    unknown = run(tmp_path, "reset-totp", "nobody@example.com", **environment)
    admin = await account_headers(Role.ADMIN, owner.resources)
    log = (await client.get("/v1/audit", headers=admin)).json()["items"]

    assert code == 0, errors
    assert f"{EMAIL}: logins need no second factor any more" in output
    assert after.json() == shown.json()
    assert (await log_in(client)).status_code == 200
    assert await counts(owner.resources) == [0, 0]
    assert (again[0], "has no second factor" in again[2]) == (1, True)
    assert (unknown[0], "There is no account" in unknown[2]) == (1, True)
    [off] = [each for each in log if each["event"] == "totp_disabled"]
    assert off["actor_id"] is None
