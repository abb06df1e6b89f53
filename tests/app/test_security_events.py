"""What is written down of logins, passwords, sessions and roles, and what is not."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import httpx2 as httpx
import pytest
from sqlalchemy import select, update

from app.models import RefreshToken, UserSession
from app.schemas.user import Role
from app.services.accounts.users import UserService
from app.settings import Settings
from chassis.auth.security_events import Event
from chassis.clock import now
from chassis.resources import Resources
from tests.command import run
from tests.databases import sqlite_only
from tests.logins import EMAIL, PASSWORD, REGISTER, bearing, log_in, refresh, tokens_of
from tests.metrics import scrape, total
from tests.process import running

NEW = "prometheus unbound"


class Events:
    """Those of a test, each without what it does not have."""

    def __init__(self, caplog: pytest.LogCaptureFixture, user: dict[str, Any]) -> None:
        self.caplog = caplog
        self.user: int = user["id"]

    @property
    def all(self) -> list[dict[str, Any]]:
        names = ("event", "account", "session", "client", "reason", "role")
        return [
            {name: vars(record)[name] for name in names if name in vars(record)}
            for record in self.caplog.records
            if record.name == "app.security"
        ]

    def take(self) -> list[dict[str, Any]]:
        """Those since the last time; all of them are of this account and this client."""
        taken = self.all
        self.caplog.clear()
        for event in taken:
            assert event.pop("account") == self.user
            assert event.pop("client") == "127.0.0.1"
        return taken


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture, user: dict[str, Any]) -> Events:
    caplog.set_level(logging.INFO, "app.security")
    return Events(caplog, user)


async def session_ids(resources: Resources) -> list[str]:
    """The oldest first, as they are in the log."""
    async with resources["sessions"].current() as session:
        wanted = select(UserSession.id).order_by(UserSession.created_at)
        return [str(id) for id in await session.scalars(wanted)]


async def test_login_and_what_ends_a_session(
    client: httpx.AsyncClient, events: Events, resources: Resources
):
    tokens = await tokens_of(client)
    [session] = await session_ids(resources)
    await client.delete("/v1/tokens", headers=bearing(tokens["access_token"]))
    await refresh(client, tokens["refresh_token"])

    *of_session, after_its_end = events.all
    assert after_its_end == {"event": "refresh_refused", "client": "127.0.0.1"}
    assert of_session == [
        {"event": "login", "account": events.user, "session": session, "client": "127.0.0.1"},
        {
            "event": "session_ended",
            "account": events.user,
            "session": session,
            "client": "127.0.0.1",
            "reason": "logout",
        },
    ]


async def test_reuse_of_a_refresh_token_is_a_warning(
    client: httpx.AsyncClient, events: Events, resources: Resources, settings: Settings
):
    settings.tokens.refresh_overlap = 0
    token = (await tokens_of(client))["refresh_token"]
    [session] = await session_ids(resources)
    await refresh(client, token)
    events.take()
    await refresh(client, token)
    levels = [record.levelname for record in events.caplog.records]

    assert events.take() == [
        {"event": "session_ended", "session": session, "reason": "reused"},
        {"event": "token_reused", "session": session},
    ]
    assert levels == ["INFO", "WARNING"]


async def test_refresh_of_what_has_expired(
    client: httpx.AsyncClient, events: Events, resources: Resources
):
    token = (await tokens_of(client))["refresh_token"]
    [session] = await session_ids(resources)
    async with resources["sessions"].write.begin() as writing:
        await writing.execute(update(RefreshToken).values(expires_at=now()))
    events.take()
    await refresh(client, token)

    assert events.take() == [
        {"event": "session_ended", "session": session, "reason": "expired"},
        {"event": "refresh_refused", "session": session},
    ]


async def test_wrong_passwords(client: httpx.AsyncClient, events: Events, resources: Resources):
    """Of an account, of none, and of what is no address; nothing else tells of whom they are."""
    token = (await tokens_of(client))["access_token"]
    [session] = await session_ids(resources)
    events.take()
    await log_in(client, "a guess")
    body = {"current_password": "a guess", "password": NEW}
    await client.patch("/v1/users/me", json=body, headers=bearing(token))
    known = events.take()
    for email in ("nobody@example.com", "no address"):
        await log_in(client, "a guess", email)

    assert known == [{"event": "login_failed"}, {"event": "password_refused", "session": session}]
    assert events.all == [{"event": "login_failed", "client": "127.0.0.1"}] * 2


async def test_new_password_and_the_sessions_that_it_ends(
    client: httpx.AsyncClient, events: Events, resources: Resources
):
    for _ in range(2):
        await tokens_of(client)
    token = (await tokens_of(client))["access_token"]
    *others, own = await session_ids(resources)
    events.take()
    body = {"current_password": PASSWORD, "password": NEW}
    await client.patch("/v1/users/me", json=body, headers=bearing(token))

    first, *ended = events.take()
    assert first == {"event": "password_changed", "session": own}
    assert sorted(ended, key=str) == sorted(
        (
            {"event": "session_ended", "session": each, "reason": "password change"}
            for each in others
        ),
        key=str,
    )


async def test_sessions_above_the_bound(
    client: httpx.AsyncClient, events: Events, resources: Resources, settings: Settings
):
    settings.tokens.max_sessions = 1
    await tokens_of(client)
    [old] = await session_ids(resources)
    events.take()
    await tokens_of(client)

    assert events.take() == [
        {"event": "login", "session": (await session_ids(resources))[0]},
        {"event": "session_ended", "session": old, "reason": "too many"},
    ]


async def test_role_that_changes(events: Events, resources: Resources):
    await UserService(resources).set_role(EMAIL, Role.EDITOR)

    assert events.take() == [{"event": "role_changed", "role": "editor"}]


async def test_all_events_are_counted_from_none_on(client: httpx.AsyncClient, resources: Resources):
    before = await scrape(client)
    await client.post("/v1/users", json=REGISTER)
    await tokens_of(client)
    for _ in range(2):
        await log_in(client, "a guess")
    after = await scrape(client)

    name = "security_events_total"
    shown = {sample.labels["event"]: sample.value for sample in before if sample.name == name}
    assert shown == dict.fromkeys(get_args(Event), 0)
    counted = {event: total(after, name, event=event) for event in shown}
    assert {event: value for event, value in counted.items() if value} == {
        "registered": 1,
        "login": 1,
        "login_failed": 2,
    }


@sqlite_only
async def test_lines_have_what_an_operator_looks_for_and_no_secret(
    environment: dict[str, Any], resources: Resources, tmp_path: Path
):
    """As Gunicorn writes them, and a command: that has no client and no request."""
    variables = environment | {
        "WEB_CONCURRENCY": 1,
        "LIMITS_ENABLED": True,
        "LIMITS_ACCOUNT_RATE": 0.001,
        "LIMITS_ACCOUNT_BURST": 1,
    }
    async with (
        running(tmp_path / "log", **variables) as service,
        service.client() as client,
    ):
        made = await client.post("/v1/users", json=REGISTER)
        elsewhere = {"X-Forwarded-For": "198.51.100.7"}
        tokens = await tokens_of(client)
        form = {"grant_type": "password", "username": EMAIL, "password": "a guess"}
        guesses = [await client.post("/v1/tokens", data=form, headers=elsewhere) for _ in range(2)]
        code, output, _ = run(tmp_path, "set-role", EMAIL, "editor", **environment)
        await service.wait_for("locked out")
        lines = [line for line in service.lines if line.get("logger") == "app.security"]
        log = service.output.read_text()

    def line_of(event: str, *more: str) -> Callable[[dict[str, Any]], bool]:
        names = {"time", "level", "logger", "message", "event", "account", *more}
        return lambda line: line["event"] == event and line.keys() == names

    assert [guess.status_code for guess in guesses] == [401, 429]
    by_client = ("client", "request_id")
    expected = [
        line_of("registered", *by_client),
        line_of("login", "session", *by_client),
        line_of("login_failed", *by_client),
        line_of("locked_out", *by_client),
    ]
    assert [matches(line) for matches, line in zip(expected, lines, strict=True)] == [True] * 4
    assert {line["account"] for line in lines} == {made.json()["id"]}
    assert [line["client"] for line in lines] == ["127.0.0.1"] * 2 + ["198.51.100.7"] * 2
    ids = [response.headers["X-Request-ID"] for response in (made, *guesses)]
    assert [line["request_id"] for line in (lines[0], *lines[2:])] == ids
    for secret in (PASSWORD, "a guess", EMAIL, *tokens.values()):
        assert str(secret) not in log or secret in ("bearer", 900)
    assert code == 0
    assert '"event":"role_changed"' in output.splitlines()[0]
    assert '"client"' not in output
