"""What readers say of books, and what that does to the books' figures."""

import asyncio
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import func, select

from app.models import Review
from app.schemas.user import Role
from chassis.resources import Resources
from tests.accounts import add_account
from tests.app.catalogue import Catalogue

REVIEW = {"rating": 4, "text": "Read in one night.\nTwice."}


@pytest.fixture
async def book(catalogue: Catalogue) -> dict[str, Any]:
    return await catalogue.add_book()


@pytest.fixture
def path(book: dict[str, Any]) -> str:
    return f"/v1/books/{book['id']}/reviews"


async def readers(resources: Resources, count: int) -> list[dict[str, str]]:
    """The headers of so many accounts."""
    async with resources["sessions"].write() as session:
        tokens = [
            await add_account(session, Role.READER, resources["access_tokens"])
            for _ in range(count)
        ]
    return [{"Authorization": f"Bearer {token}"} for token in tokens]


@pytest.fixture
async def reader(resources: Resources) -> dict[str, str]:
    [headers] = await readers(resources, 1)
    return headers


async def figures(client: httpx.AsyncClient, book: dict[str, Any]) -> tuple[int, float]:
    shown = (await client.get(f"/v1/books/{book['id']}")).json()
    return shown["ratings_count"], shown["average_rating"]


async def test_review_is_shown_and_counts(
    client: httpx.AsyncClient, book: dict[str, Any], path: str, reader: dict[str, str]
):
    await client.get(path)
    await client.get(f"/v1/books/{book['id']}")
    made = await client.post(path, json=REVIEW, headers=reader)
    page = (await client.get(path)).json()
    past_the_cache = {"Cache-Control": "no-cache"}
    ranking = (await client.get("/v1/rankings/books", headers=past_the_cache)).json()

    assert made.status_code == 201
    assert made.json() | REVIEW == made.json()
    assert page == {"items": [made.json()], "next": None}
    assert (await client.get(made.headers["Location"])).json() == made.json()
    assert await figures(client, book) == (1, 4.0)
    assert ranking["items"][0]["book"]["id"] == book["id"]


async def test_second_review_of_a_book_is_refused_and_changes_nothing(
    client: httpx.AsyncClient, book: dict[str, Any], path: str, reader: dict[str, str]
):
    await client.post(path, json=REVIEW, headers=reader)
    again = await client.post(path, json={"rating": 1, "text": "No"}, headers=reader)

    assert again.status_code == 409
    assert await figures(client, book) == (1, 4.0)


async def test_of_many_reviews_of_one_user_at_once_one_counts(
    client: httpx.AsyncClient, book: dict[str, Any], path: str, reader: dict[str, str]
):
    responses = await asyncio.gather(
        *(client.post(path, json=REVIEW, headers=reader) for _ in range(10))
    )

    assert sorted(response.status_code for response in responses) == [201, *[409] * 9]
    assert await figures(client, book) == (1, 4.0)


@pytest.mark.drill
async def test_many_who_rate_a_book_at_once_all_count(
    client: httpx.AsyncClient,
    book: dict[str, Any],
    path: str,
    resources: Resources,
    database_url: str,
):
    async def rate(number: int, headers: dict[str, str]) -> int:
        body = {"rating": number % 5 + 1, "text": "x"}
        while (response := await client.post(path, json=body, headers=headers)).status_code == 503:
            await asyncio.sleep(0.2 * int(response.headers["Retry-After"]))
        return response.status_code

    # SQLite has one writer at a time, and those who wait for it sleep: no place for a crowd.
    many = 40 if database_url.startswith("sqlite") else 200
    users = await readers(resources, many)
    async with asyncio.timeout(60):
        statuses = await asyncio.gather(*(rate(n, headers) for n, headers in enumerate(users)))
    async with resources["sessions"].read() as session:
        count = await session.scalar(select(func.count()).select_from(Review))

    assert set(statuses) == {201}
    assert await figures(client, book) == (many, 3.0)
    assert count == many


async def test_changes_and_deletions_at_once_keep_the_figures_exact(
    client: httpx.AsyncClient, book: dict[str, Any], path: str, resources: Resources
):
    users = await readers(resources, 20)
    made = [(await client.post(path, json=REVIEW, headers=headers)).json() for headers in users]
    changes = [
        client.delete(f"{path}/{review['id']}", headers=headers)
        if number % 2
        else client.patch(f"{path}/{review['id']}", json={"rating": 1}, headers=headers)
        for number, (review, headers) in enumerate(zip(made, users, strict=True))
    ]
    responses = await asyncio.gather(*changes)

    assert {response.status_code for response in responses} == {200, 204}
    assert await figures(client, book) == (10, 1.0)


async def test_last_review_takes_its_figures_along(
    client: httpx.AsyncClient, book: dict[str, Any], path: str, reader: dict[str, str]
):
    review = (await client.post(path, json=REVIEW, headers=reader)).json()
    await client.get(f"{path}/{review['id']}")
    gone = await client.delete(f"{path}/{review['id']}", headers=reader)

    assert gone.status_code == 204
    assert (await client.get(f"{path}/{review['id']}")).status_code == 404
    assert await figures(client, book) == (0, 0.0)


async def test_review_belongs_to_who_wrote_it(
    client: httpx.AsyncClient, catalogue: Catalogue, path: str, reader: dict[str, str]
):
    review = (await client.post(path, json=REVIEW, headers=reader)).json()
    own = f"{path}/{review['id']}"
    others = catalogue.editor
    refused = [
        await client.patch(own, json={"rating": 1}, headers=others),
        await client.delete(own, headers=others),
        await client.patch(own, json={"rating": 1}),
        await client.post(path, json=REVIEW),
    ]
    elsewhere = (await catalogue.add_book("Another"))["id"]
    wrong = await client.patch(
        f"/v1/books/{elsewhere}/reviews/{review['id']}", json={"rating": 1}, headers=reader
    )

    assert [response.status_code for response in refused] == [403, 403, 401, 401]
    assert wrong.status_code == 404
    assert (await client.get(own)).json() == review


async def test_new_name_of_a_reviewer_is_shown(
    client: httpx.AsyncClient, path: str, reader: dict[str, str]
):
    await client.post(path, json=REVIEW, headers=reader)
    await client.get(path)
    await client.patch("/v1/users/me", json={"name": "Renamed"}, headers=reader)

    assert (await client.get(path)).json()["items"][0]["user"]["name"] == "Renamed"


async def test_walk_sees_each_review_once_the_latest_first(
    client: httpx.AsyncClient, catalogue: Catalogue, path: str, resources: Resources
):
    users = await readers(resources, 7)
    made = [(await client.post(path, json=REVIEW, headers=headers)).json() for headers in users]

    walked = await catalogue.walk(path, limit=3)

    assert [review["id"] for review in walked] == [review["id"] for review in reversed(made)]


async def test_reviews_of_no_book(
    client: httpx.AsyncClient,
    catalogue: Catalogue,
    book: dict[str, Any],
    path: str,
    reader: dict[str, str],
):
    review = (await client.post(path, json=REVIEW, headers=reader)).json()
    await client.get(path)
    await client.delete(f"/v1/books/{book['id']}", headers=catalogue.editor)

    for response in (
        await client.get(path),
        await client.get(f"{path}/{review['id']}"),
        await client.post(path, json=REVIEW, headers=reader),
    ):
        assert response.status_code == 404


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("rating", rating) for rating in (0, 6, 3.5, "4", True, None)],
        *[("text", text) for text in ("", " ", "x" * 5001, "a\0b", 1)],
        ("user_id", 1),
    ],
)
async def test_nonsense_is_no_review(
    client: httpx.AsyncClient, path: str, reader: dict[str, str], field: str, value: Any
):
    response = await client.post(path, json=REVIEW | {field: value}, headers=reader)

    assert response.status_code == 422
    assert response.json()["errors"][0]["loc"] == ["body", field]
