"""Requests that are sent again with the same `Idempotency-Key`."""

import asyncio
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import func, select, update

from app.about import NAME
from app.models import UserSession
from app.schemas.user import Role
from app.services.retention import RetentionService
from app.settings import Settings
from chassis.auth.settings import TokenSettings
from chassis.clock import now
from chassis.http.application import include
from chassis.http.dependencies import Idempotent, Session
from chassis.http.routing import Route
from chassis.idempotency.model import IdempotencyRecord
from chassis.idempotency.requests import IdempotencyStore
from chassis.resources import Resources
from tests.accounts import add_account, editors_token
from tests.conftest import client_of
from tests.process import running
from tests.purchases.model import Payer
from tests.service import create_app
from tests.shop import Shop, purchase

KEY = {"Idempotency-Key": '"8e03978e-40d5-43e8-bc93-6894a57f9324"'}
PAYER = {"name": "Mary Shelley"}
USER = {"email": "mary@example.com", "name": "Mary", "password": "frankenstein"}
FORM = {"grant_type": "password", "username": USER["email"], "password": USER["password"]}


async def count(resources: Resources, model: Any) -> int:
    async with resources["sessions"].read() as session:
        return await session.scalar(select(func.count()).select_from(model)) or 0


def same(first: httpx.Response, again: httpx.Response) -> bool:
    """The same answer, the second time out of what was kept."""
    assert first.is_success, first.text
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    named = ("Location", "ETag", "Content-Type")
    return (first.status_code, first.content, *map(first.headers.get, named)) == (
        *(again.status_code, again.content, *map(again.headers.get, named)),
    )


async def test_repeated_request_has_one_effect_and_one_answer(
    client: httpx.AsyncClient, shop: Shop, token: str
):
    headers = shop.editor | KEY
    requests: list[tuple[str, dict[str, Any]]] = [
        ("/v1/payers", {"json": PAYER}),
        (
            "/v1/purchases",
            {"json": purchase(note="Lamps")},
        ),
        ("/v1/users", {"json": USER}),
        ("/v1/tokens", {"data": FORM}),
    ]

    for number, (path, body) in enumerate(requests):
        headers["Idempotency-Key"] = f"key-{number}"
        first, again = [await client.post(path, headers=headers, **body) for _ in range(2)]

        assert same(first, again), path
    refresh = {"refresh_token": first.json()["refresh_token"]}
    headers["Idempotency-Key"] = "another"
    first, again = [
        await client.post("/v1/tokens/refresh", headers=headers, json=refresh) for _ in range(2)
    ]
    assert same(first, again)  # and it is no reuse that would end the session
    assert (await client.get("/v1/users/me", headers=bearing(again))).status_code == 200


def bearing(tokens: httpx.Response) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens.json()['access_token']}"}


async def test_every_post_documents_the_header(client: httpx.AsyncClient):
    paths = (await client.get("/openapi.json")).json()["paths"]
    posts = {path: methods["post"] for path, methods in paths.items() if "post" in methods}

    lacking = {
        path
        for path, post in posts.items()
        if "Idempotency-Key" not in {parameter["name"] for parameter in post["parameters"]}
        or "409" not in post["responses"]
    }
    assert len(posts) >= 6
    assert lacking == set()


async def test_key_of_another_request_is_refused(shop: Shop, resources: Resources):
    headers = shop.editor | KEY
    await shop.client.post("/v1/payers", json=PAYER, headers=headers)

    other_body = await shop.client.post("/v1/payers", json={"name": "J"}, headers=headers)
    other_path = await shop.client.post("/v1/purchases", json=purchase(), headers=headers)
    empty = await shop.client.post(
        "/v1/payers", json=PAYER, headers=headers | {"Idempotency-Key": ""}
    )

    assert [a.status_code for a in (other_body, other_path, empty)] == [422, 422, 422]
    assert other_body.json()["errors"][0]["loc"] == ["header", "Idempotency-Key"]
    assert await count(resources, Payer) == 1


async def test_each_account_has_keys_of_its_own(shop: Shop, resources: Resources):
    async with resources["sessions"].write() as session:
        other = await add_account(session, Role.EDITOR, resources["access_tokens"])
    theirs = {"Authorization": f"Bearer {other}"}

    responses = [
        await shop.client.post("/v1/payers", json={"name": name}, headers=headers | KEY)
        for name, headers in (("Mine", shop.editor), ("Theirs", theirs))
    ]

    assert [response.status_code for response in responses] == [201, 201]


async def test_refused_request_keeps_nothing(shop: Shop, resources: Resources):
    headers = shop.editor | KEY
    body = purchase(payer_id=1_000_000)

    refused = await shop.client.post("/v1/purchases", json=body, headers=headers)
    kept = await count(resources, IdempotencyRecord)
    mended = body | {"payer_id": await shop.add_payer()}
    response = await shop.client.post("/v1/purchases", json=mended, headers=headers)

    assert (refused.status_code, kept, response.status_code) == (422, 0, 201)


async def test_answer_is_forgotten_after_its_time(shop: Shop, resources: Resources):
    headers = shop.editor | KEY
    await shop.client.post("/v1/payers", json=PAYER, headers=headers)
    async with resources["sessions"].write.begin() as session:
        await session.execute(
            update(IdempotencyRecord).values(expires_at=now() - timedelta(seconds=1))
        )

    again = await shop.client.post("/v1/payers", json={"name": "Later"}, headers=headers)

    assert again.status_code == 201
    assert await count(resources, Payer) == 2


async def test_twins_at_once_have_one_effect(shop: Shop, resources: Resources):
    headers = shop.editor | KEY

    responses = await asyncio.gather(
        *(shop.client.post("/v1/payers", json=PAYER, headers=headers) for _ in range(20))
    )

    assert await count(resources, Payer) == 1
    agree(responses)


def agree(responses: list[httpx.Response]) -> None:
    """All that were answered; the others came while the first was."""
    statuses = Counter(response.status_code for response in responses)
    assert statuses[201] >= 1
    assert statuses.keys() <= {201, 409}, [response.text for response in responses]
    assert all(
        "Retry-After" in response.headers for response in responses if response.status_code == 409
    )
    assert len({response.content for response in responses if response.status_code == 201}) == 1


@pytest.mark.drill
async def test_twins_over_four_workers_have_one_effect(
    environment: dict[str, Any], resources: Resources, tmp_path: Path
):
    token = await editors_token(environment["DATABASE_URL"])
    variables = environment | {"WEB_CONCURRENCY": 4, "DATABASE_MAX_OVERFLOW": 5}
    async with running(tmp_path / "log", **variables) as service:

        async def post(key: int) -> httpx.Response:
            # A connection of its own each time: the kernel gives it to any worker.
            async with httpx.AsyncClient(base_url=service.url, timeout=20) as client:
                headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": f"twin-{key}"}
                body = {"name": f"Payer {key}"}
                return await client.post("/v1/payers", json=body, headers=headers)

        for key in range(5):
            responses = await asyncio.gather(*(post(key) for _ in range(20)))
            agree(responses)
            settled = await post(key)

            assert await count(resources, Payer) == key + 1
            assert settled.status_code == 201
            assert settled.content in {response.content for response in responses}


async def test_what_is_kept_cannot_be_read_in_the_database(
    client: httpx.AsyncClient, resources: Resources
):
    await client.post("/v1/users", json=USER)
    tokens = (await client.post("/v1/tokens", data=FORM, headers=KEY)).json()

    async with resources["sessions"].read() as session:
        [kept] = await session.scalars(select(IdempotencyRecord))
    texts = [*map(str, vars(kept).values())]

    assert not any(tokens["refresh_token"] in text for text in texts)
    assert not any(USER["email"] in text for text in texts)
    assert '"refresh_token"' in resources["idempotency"].cipher.decrypt(kept.response).decode()


async def test_answer_outlives_a_change_of_the_key(
    client: httpx.AsyncClient, settings: Settings, resources: Resources
):
    await client.post("/v1/users", json=USER)
    first = await client.post("/v1/tokens", data=FORM, headers=KEY)
    tokens = TokenSettings(audience=NAME, key="another" * 5, old_keys=settings.tokens.key)
    changed = resources | {
        "idempotency": IdempotencyStore(settings.request.replay_ttl, tokens.keys)
    }

    async with client_of(create_app(settings), changed) as later:
        again = await later.post("/v1/tokens", data=FORM, headers=KEY)

    assert again.content == first.content
    assert await count(resources, UserSession) == 1


async def test_refresh_that_is_refused_keeps_nothing(
    client: httpx.AsyncClient, resources: Resources, settings: Settings
):
    settings.tokens.refresh_overlap = 0
    await client.post("/v1/users", json=USER)
    tokens = (await client.post("/v1/tokens", data=FORM)).json()
    refresh = {"refresh_token": tokens["refresh_token"]}
    await client.post("/v1/tokens/refresh", json=refresh)

    reused = [await client.post("/v1/tokens/refresh", json=refresh, headers=KEY) for _ in range(3)]

    assert [response.status_code for response in reused] == [401, 401, 401]
    assert await count(resources, IdempotencyRecord) == 0


async def test_refresh_is_the_same_with_another_access_token(
    client: httpx.AsyncClient, resources: Resources
):
    await client.post("/v1/users", json=USER)
    tokens = await client.post("/v1/tokens", data=FORM)
    refresh = {"refresh_token": tokens.json()["refresh_token"]}

    first = await client.post("/v1/tokens/refresh", json=refresh, headers=KEY | bearing(tokens))
    again = await client.post("/v1/tokens/refresh", json=refresh, headers=KEY)

    assert same(first, again)


async def test_twins_with_an_expired_key_have_one_effect(shop: Shop, resources: Resources):
    headers = shop.editor | KEY
    await shop.client.post("/v1/payers", json=PAYER, headers=headers)
    async with resources["sessions"].write.begin() as session:
        await session.execute(
            update(IdempotencyRecord).values(expires_at=now() - timedelta(seconds=1))
        )

    body = {"name": "Later"}
    responses = await asyncio.gather(
        *(shop.client.post("/v1/payers", json=body, headers=headers) for _ in range(20))
    )

    assert await count(resources, Payer) == 2
    agree(responses)


async def test_what_is_renewed_while_it_is_cleaned_stays(shop: Shop, resources: Resources):
    headers = shop.editor | KEY
    await shop.client.post("/v1/payers", json=PAYER, headers=headers)
    async with resources["sessions"].write.begin() as session:
        await session.execute(
            update(IdempotencyRecord).values(expires_at=now() - timedelta(seconds=1))
        )

    async def renew() -> httpx.Response:
        while True:  # 409 while its row is being deleted
            response = await shop.client.post("/v1/payers", json={"name": "Later"}, headers=headers)
            if response.status_code != 409:
                return response

    renewed, _ = await asyncio.gather(renew(), RetentionService(resources).clean())
    again = await shop.client.post("/v1/payers", json={"name": "Later"}, headers=headers)

    assert same(renewed, again)


class Large(BaseModel):
    text: str


async def test_large_answer_is_kept(settings: Settings, resources: Resources):
    app = create_app(settings)
    router = APIRouter(route_class=Route)

    @router.post("/large", status_code=201)
    async def make(session: Session, idempotent: Idempotent) -> Large:
        async def work() -> Large:
            return Large(text="猫" * 40_000)

        large, _ = await idempotent.run(session, Large, work)
        await session.commit()
        return large

    include(app, router)
    async with client_of(app, resources) as client:
        first, again = [await client.post("/large", headers=KEY) for _ in range(2)]

    assert len(first.content) > 120_000
    assert same(first, again)


async def test_key_that_was_taken_away_is_a_conflict(
    client: httpx.AsyncClient, settings: Settings, resources: Resources
):
    await client.post("/v1/users", json=USER)
    await client.post("/v1/tokens", data=FORM, headers=KEY)
    tokens = TokenSettings(audience=NAME, key="another" * 5)
    changed = resources | {
        "idempotency": IdempotencyStore(settings.request.replay_ttl, tokens.keys)
    }

    async with client_of(create_app(settings), changed) as later:
        again = await later.post("/v1/tokens", data=FORM, headers=KEY)

    assert again.status_code == 409


@pytest.mark.parametrize(
    "kind", ["application/json; a=form", "application/json;form", "application/vnd.form+json"]
)
async def test_body_counts_whatever_parameters_its_type_has(
    client: httpx.AsyncClient, shop: Shop, kind: str
):
    headers = shop.editor | KEY | {"Content-Type": kind}

    first = await client.post("/v1/payers", json=PAYER, headers=headers)
    other = await client.post("/v1/payers", json={"name": "Somebody else"}, headers=headers)

    assert (first.status_code, other.status_code) == (201, 422)
    assert "Idempotency-Replayed" not in other.headers


async def test_form_counts_whatever_parameters_its_type_has(client: httpx.AsyncClient):
    await client.post("/v1/users", json=USER)
    form = {"Content-Type": "Application/X-WWW-Form-Urlencoded ; charset=utf-8"}

    first = await client.post("/v1/tokens", data=FORM, headers=KEY | form)
    other = await client.post("/v1/tokens", data=FORM | {"scope": "a"}, headers=KEY | form)

    assert (first.status_code, other.status_code) == (200, 422)
