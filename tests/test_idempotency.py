"""Requests that are sent again with the same `Idempotency-Key`."""

import asyncio
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import func, select, update

from app.idempotency import Safe
from app.main import create_app
from app.models import Author, KeptAnswer, UserSession
from app.models.base import now
from app.resources import Resources
from app.schemas.user import Role
from app.services.cleaning import CleaningService
from app.settings import PasswordSettings, Settings, TokenSettings
from tests.accounts import add_account, editors_token
from tests.catalogue import Catalogue
from tests.conftest import client_of
from tests.process import running

KEY = {"Idempotency-Key": '"8e03978e-40d5-43e8-bc93-6894a57f9324"'}
AUTHOR = {"name": "Mary Shelley"}
USER = {"email": "mary@example.com", "name": "Mary", "password": "frankenstein"}
FORM = {"grant_type": "password", "username": USER["email"], "password": USER["password"]}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    settings.passwords = PasswordSettings(time_cost=1, memory_cost=8)  # what it costs is not tested
    return settings


async def count(resources: Resources, model: Any) -> int:
    async with resources["sessions"].read() as session:
        return await session.scalar(select(func.count()).select_from(model)) or 0


def same(first: httpx2.Response, again: httpx2.Response) -> bool:
    """The same answer, the second time out of what was kept."""
    assert first.is_success, first.text
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    named = ("Location", "ETag", "Content-Type")
    return (first.status_code, first.content, *map(first.headers.get, named)) == (
        *(again.status_code, again.content, *map(again.headers.get, named)),
    )


async def test_repeated_request_has_one_effect_and_one_answer(
    client: httpx2.AsyncClient, catalogue: Catalogue, token: str
):
    headers = catalogue.editor | KEY
    book = await catalogue.add_book()
    requests: list[tuple[str, dict[str, Any]]] = [
        ("/v1/authors", {"json": AUTHOR}),
        ("/v1/books", {"json": {"title": "Lamps", "author_ids": [book["authors"][0]["id"]]}}),
        (f"/v1/books/{book['id']}/reviews", {"json": {"rating": 5, "text": "Good."}}),
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


def bearing(tokens: httpx2.Response) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens.json()['access_token']}"}


async def test_every_post_documents_the_header(client: httpx2.AsyncClient):
    paths = (await client.get("/openapi.json")).json()["paths"]
    posts = {path: methods["post"] for path, methods in paths.items() if "post" in methods}

    lacking = {
        path
        for path, post in posts.items()
        if "Idempotency-Key" not in {parameter["name"] for parameter in post["parameters"]}
        or "409" not in post["responses"]
    }
    assert len(posts) == 6
    assert lacking == set()


async def test_key_of_another_request_is_refused(catalogue: Catalogue, resources: Resources):
    headers = catalogue.editor | KEY
    await catalogue.client.post("/v1/authors", json=AUTHOR, headers=headers)

    other_body = await catalogue.client.post("/v1/authors", json={"name": "J"}, headers=headers)
    other_path = await catalogue.client.post("/v1/books", json={"title": "T"}, headers=headers)
    empty = await catalogue.client.post(
        "/v1/authors", json=AUTHOR, headers=headers | {"Idempotency-Key": ""}
    )

    assert [a.status_code for a in (other_body, other_path, empty)] == [422, 422, 422]
    assert other_body.json()["errors"][0]["loc"] == ["header", "Idempotency-Key"]
    assert await count(resources, Author) == 1


async def test_each_account_has_keys_of_its_own(catalogue: Catalogue, resources: Resources):
    async with resources["sessions"].write() as session:
        other = await add_account(session, Role.EDITOR, resources["access_tokens"])
    theirs = {"Authorization": f"Bearer {other}"}

    answers = [
        await catalogue.client.post("/v1/authors", json={"name": name}, headers=headers | KEY)
        for name, headers in (("Mine", catalogue.editor), ("Theirs", theirs))
    ]

    assert [answer.status_code for answer in answers] == [201, 201]


async def test_refused_request_keeps_nothing(catalogue: Catalogue, resources: Resources):
    headers = catalogue.editor | KEY
    body = {"title": "Frankenstein", "author_ids": [1_000_000]}

    refused = await catalogue.client.post("/v1/books", json=body, headers=headers)
    kept = await count(resources, KeptAnswer)
    mended = body | {"author_ids": [await catalogue.add_author()]}
    answer = await catalogue.client.post("/v1/books", json=mended, headers=headers)

    assert (refused.status_code, kept, answer.status_code) == (422, 0, 201)


async def test_answer_is_forgotten_after_its_time(catalogue: Catalogue, resources: Resources):
    headers = catalogue.editor | KEY
    await catalogue.client.post("/v1/authors", json=AUTHOR, headers=headers)
    async with resources["sessions"].write.begin() as session:
        await session.execute(update(KeptAnswer).values(expires_at=now() - timedelta(seconds=1)))

    again = await catalogue.client.post("/v1/authors", json={"name": "Later"}, headers=headers)

    assert again.status_code == 201
    assert await count(resources, Author) == 2


async def test_twins_at_once_have_one_effect(catalogue: Catalogue, resources: Resources):
    headers = catalogue.editor | KEY

    answers = await asyncio.gather(
        *(catalogue.client.post("/v1/authors", json=AUTHOR, headers=headers) for _ in range(20))
    )

    assert await count(resources, Author) == 1
    agree(answers)


def agree(answers: list[httpx2.Response]) -> None:
    """All that were answered; the others came while the first was."""
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses[201] >= 1
    assert statuses.keys() <= {201, 409}, [answer.text for answer in answers]
    assert all("Retry-After" in answer.headers for answer in answers if answer.status_code == 409)
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1


async def test_twins_over_four_workers_have_one_effect(
    environment: dict[str, Any], resources: Resources, tmp_path: Path
):
    token = await editors_token(environment["DATABASE_URL"])
    variables = environment | {"WEB_CONCURRENCY": 4, "DATABASE_MAX_OVERFLOW": 5}
    async with running(tmp_path / "log", **variables) as service:

        async def post(key: int) -> httpx2.Response:
            # A connection of its own each time: the kernel gives it to any worker.
            async with httpx2.AsyncClient(base_url=service.url, timeout=20) as client:
                headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": f"twin-{key}"}
                body = {"name": f"Author {key}"}
                return await client.post("/v1/authors", json=body, headers=headers)

        for key in range(5):
            answers = await asyncio.gather(*(post(key) for _ in range(20)))
            agree(answers)
            settled = await post(key)

            assert await count(resources, Author) == key + 1
            assert settled.status_code == 201
            assert settled.content in {answer.content for answer in answers}


async def test_what_is_kept_cannot_be_read_in_the_database(
    client: httpx2.AsyncClient, resources: Resources
):
    await client.post("/v1/users", json=USER)
    tokens = (await client.post("/v1/tokens", data=FORM, headers=KEY)).json()

    async with resources["sessions"].read() as session:
        [kept] = await session.scalars(select(KeptAnswer))
    texts = [*map(str, vars(kept).values())]

    assert not any(tokens["refresh_token"] in text for text in texts)
    assert not any(USER["email"] in text for text in texts)
    assert '"refresh_token"' in resources["kept_answers"].cipher.decrypt(kept.answer).decode()


async def test_answer_outlives_a_change_of_the_key(
    client: httpx2.AsyncClient, settings: Settings, resources: Resources
):
    await client.post("/v1/users", json=USER)
    first = await client.post("/v1/tokens", data=FORM, headers=KEY)
    tokens = TokenSettings(key="another" * 5, old_keys=settings.tokens.key)
    changed = resources | {"kept_answers": Safe(settings.model_copy(update={"tokens": tokens}))}

    async with client_of(create_app(settings), changed) as later:
        again = await later.post("/v1/tokens", data=FORM, headers=KEY)

    assert again.content == first.content
    assert await count(resources, UserSession) == 1


async def test_refresh_that_is_refused_keeps_nothing(
    client: httpx2.AsyncClient, resources: Resources, settings: Settings
):
    settings.tokens.refresh_overlap = 0
    await client.post("/v1/users", json=USER)
    tokens = (await client.post("/v1/tokens", data=FORM)).json()
    refresh = {"refresh_token": tokens["refresh_token"]}
    await client.post("/v1/tokens/refresh", json=refresh)

    reused = [await client.post("/v1/tokens/refresh", json=refresh, headers=KEY) for _ in range(3)]

    assert [answer.status_code for answer in reused] == [401, 401, 401]
    assert await count(resources, KeptAnswer) == 0


async def test_refresh_is_the_same_with_another_access_token(
    client: httpx2.AsyncClient, resources: Resources
):
    await client.post("/v1/users", json=USER)
    tokens = await client.post("/v1/tokens", data=FORM)
    refresh = {"refresh_token": tokens.json()["refresh_token"]}

    first = await client.post("/v1/tokens/refresh", json=refresh, headers=KEY | bearing(tokens))
    again = await client.post("/v1/tokens/refresh", json=refresh, headers=KEY)

    assert same(first, again)


async def test_twins_with_an_expired_key_have_one_effect(
    catalogue: Catalogue, resources: Resources
):
    headers = catalogue.editor | KEY
    await catalogue.client.post("/v1/authors", json=AUTHOR, headers=headers)
    async with resources["sessions"].write.begin() as session:
        await session.execute(update(KeptAnswer).values(expires_at=now() - timedelta(seconds=1)))

    body = {"name": "Later"}
    answers = await asyncio.gather(
        *(catalogue.client.post("/v1/authors", json=body, headers=headers) for _ in range(20))
    )

    assert await count(resources, Author) == 2
    agree(answers)


async def test_what_is_renewed_while_it_is_cleaned_stays(
    catalogue: Catalogue, resources: Resources
):
    headers = catalogue.editor | KEY
    await catalogue.client.post("/v1/authors", json=AUTHOR, headers=headers)
    async with resources["sessions"].write.begin() as session:
        await session.execute(update(KeptAnswer).values(expires_at=now() - timedelta(seconds=1)))

    renewed, _ = await asyncio.gather(
        catalogue.client.post("/v1/authors", json={"name": "Later"}, headers=headers),
        CleaningService(resources["sessions"], resources["settings"].tokens).clean(),
    )
    again = await catalogue.client.post("/v1/authors", json={"name": "Later"}, headers=headers)

    assert same(renewed, again)


async def test_large_answer_is_kept(catalogue: Catalogue, resources: Resources):
    authors = [await catalogue.add_author(f"{number} {'猫' * 200}") for number in range(100)]
    headers = catalogue.editor | KEY
    body = {"title": "Cats", "author_ids": authors}

    first, again = [
        await catalogue.client.post("/v1/books", json=body, headers=headers) for _ in range(2)
    ]

    assert len(first.content) > 60_000
    assert same(first, again)


async def test_key_that_was_taken_away_is_a_conflict(
    client: httpx2.AsyncClient, settings: Settings, resources: Resources
):
    await client.post("/v1/users", json=USER)
    await client.post("/v1/tokens", data=FORM, headers=KEY)
    tokens = TokenSettings(key="another" * 5)
    changed = resources | {"kept_answers": Safe(settings.model_copy(update={"tokens": tokens}))}

    async with client_of(create_app(settings), changed) as later:
        again = await later.post("/v1/tokens", data=FORM, headers=KEY)

    assert again.status_code == 409


@pytest.mark.parametrize(
    "kind", ["application/json; a=form", "application/json;form", "application/vnd.form+json"]
)
async def test_body_counts_whatever_parameters_its_type_has(
    client: httpx2.AsyncClient, catalogue: Catalogue, kind: str
):
    headers = catalogue.editor | KEY | {"Content-Type": kind}

    first = await client.post("/v1/authors", json=AUTHOR, headers=headers)
    other = await client.post("/v1/authors", json={"name": "Somebody else"}, headers=headers)

    assert (first.status_code, other.status_code) == (201, 422)
    assert "Idempotency-Replayed" not in other.headers


async def test_form_counts_whatever_parameters_its_type_has(client: httpx2.AsyncClient):
    await client.post("/v1/users", json=USER)
    form = {"Content-Type": "Application/X-WWW-Form-Urlencoded ; charset=utf-8"}

    first = await client.post("/v1/tokens", data=FORM, headers=KEY | form)
    other = await client.post("/v1/tokens", data=FORM | {"scope": "a"}, headers=KEY | form)

    assert (first.status_code, other.status_code) == (200, 422)
