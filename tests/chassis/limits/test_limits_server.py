"""The server of limits, where it is another one than that of the cache."""

from typing import Any

import pytest

from app.settings import Settings
from chassis.jobs.settings import JobsSettings
from chassis.limits.settings import LimitsSettings
from chassis.redis.shared_connection import Reply, SharedConnection
from chassis.resources import open_resources
from tests.conftest import Servers, client_of
from tests.databases import sqlite_only
from tests.service import create_app


@sqlite_only
async def test_question_to_the_limiter_and_to_the_cache_are_on_their_way_together(
    settings: Settings, servers: Servers, monkeypatch: pytest.MonkeyPatch
):
    """Also where they are two servers: what is cached waits for one round trip."""
    update = {"jobs": JobsSettings(url=servers.redis_url), "limits": LimitsSettings()}
    settings = settings.model_copy(update=update)
    app = create_app(settings)
    async with open_resources(settings) as own, client_of(app, own) as client:
        await client.get("/v1/purchases")
        limits, cache = own["limiter"].shared, own["cache"].store.shared
        steps: list[tuple[str, str]] = []
        for name, shared in (("limits", limits), ("cache", cache)):
            record(monkeypatch, shared, name, steps)
        hit = await client.get("/v1/purchases")

    assert limits is not cache
    assert hit.headers["X-Cache"] == "HIT"
    assert [step for step, _ in steps] == ["send", "send", "receive", "receive"]
    assert {name for _, name in steps[:2]} == {"limits", "cache"}


def record(
    monkeypatch: pytest.MonkeyPatch,
    shared: SharedConnection,
    name: str,
    steps: list[tuple[str, str]],
) -> None:
    """Note whenever something is sent and waited for."""
    send, receive = shared.send, shared.receive

    def noted_send(*command: Any) -> Reply:
        steps.append(("send", name))
        return send(*command)

    async def noted_receive(response: Reply) -> Any:
        steps.append(("receive", name))
        return await receive(response)

    monkeypatch.setattr(shared, "send", noted_send)
    monkeypatch.setattr(shared, "receive", noted_receive)
