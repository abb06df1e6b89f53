"""Reviews of a deleted account go with it, and with their part in the figures of the books."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import delete as delete_rows
from sqlalchemy import event, func, insert, select, update

from app.main import create_app
from app.models import Book, Review, User
from app.schemas.review import ReviewCreate
from app.schemas.user import Role, UserRead
from app.services.accounts.deletion import DeletionService
from app.services.accounts.users import UserService
from app.services.review_deletion import BATCH
from app.services.reviews import ReviewService
from app.settings import Settings
from chassis.files.settings import FilesSettings
from chassis.resources import Resources
from tests.accounts import account_headers
from tests.app.catalogue import Catalogue
from tests.app.images import image
from tests.app.rows import add_books
from tests.app.test_deletion import clear, counts, delete
from tests.chassis.database.test_deadlocks import until_somebody_waits
from tests.conftest import client_of
from tests.databases import mariadb_only
from tests.logins import REGISTER, bearing, tokens_of

REVIEW = {"rating": 4, "text": "Read in one night."}


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    settings.files = FilesSettings(url=f"file://{tmp_path}")
    settings.request.timeout = 60
    return settings


async def wrong_figures(resources: Resources) -> list[Any]:
    """Books whose figures are not those of their reviews."""
    reviews = (
        select(Review.book_id, func.count().label("count"), func.sum(Review.rating).label("sum"))
        .group_by(Review.book_id)
        .subquery()
    )
    count, total = func.coalesce(reviews.c.count, 0), func.coalesce(reviews.c.sum, 0)
    books = select(Book.id, Book.ratings_count, Book.ratings_sum, count, total)
    wrong = (Book.ratings_count != count) | (Book.ratings_sum != total)
    async with resources["sessions"].current() as session:
        joined = books.outerjoin(reviews, reviews.c.book_id == Book.id).where(wrong)
        return [*await session.execute(joined)]


async def test_reviews_and_their_ratings_go_at_once(
    client: httpx.AsyncClient, user: dict[str, Any], catalogue: Catalogue, resources: Resources
):
    book = await catalogue.add_book()
    path = f"/v1/books/{book['id']}/reviews"
    other = await account_headers(Role.READER, resources)
    token = (await tokens_of(client))["access_token"]
    await client.post(path, json=REVIEW, headers=bearing(token))
    await client.post(path, json=REVIEW | {"rating": 1}, headers=other)
    cached = (await client.get(path)).json(), (await client.get(f"/v1/books/{book['id']}")).json()
    await delete(client, token)
    reviews = (await client.get(path)).json()["items"]
    shown = (await client.get(f"/v1/books/{book['id']}")).json()

    assert (len(cached[0]["items"]), cached[1]["ratings_count"]) == (2, 2)
    assert [review["rating"] for review in reviews] == [1]
    assert (shown["ratings_count"], shown["average_rating"]) == (1, 1.0)
    assert shown["version"] == cached[1]["version"] + 1


async def add_reviews(resources: Resources, user_id: int, count: int) -> None:
    async with resources["sessions"].write() as session:
        await add_books(session, count)
        await session.execute(update(Book).values(ratings_count=1, ratings_sum=3))
        ids = (await session.scalars(select(Book.id))).all()
        rows = [{"book_id": id, "user_id": user_id, "rating": 3, "text": "Read."} for id in ids]
        await session.execute(insert(Review), rows)
        await session.commit()


async def test_many_reviews_are_deleted_in_short_transactions(
    client: httpx.AsyncClient, user: dict[str, Any], resources: Resources
):
    await add_reviews(resources, user["id"], 3 * BATCH + 7)
    token = (await tokens_of(client))["access_token"]
    transactions: list[list[int]] = [[]]

    def count(_: Any, __: Any, statement: str, ___: Any, context: Any, ____: bool) -> None:
        if statement.startswith("DELETE FROM reviews"):
            transactions[-1].append(context.rowcount)

    def commit(_: Any) -> None:
        transactions.append([])

    engine = resources["sessions"].write.kw["bind"].sync_engine
    event.listen(engine, "after_cursor_execute", count)
    event.listen(engine, "commit", commit)
    try:
        deleted = await delete(client, token)
        await DeletionService(resources).delete_all(60)
    finally:
        event.remove(engine, "after_cursor_execute", count)
        event.remove(engine, "commit", commit)

    assert deleted.status_code == 204
    assert [each for each in transactions if each] == [[BATCH], [BATCH], [BATCH], [7]]
    assert await counts(resources) == [0, 0, 0, 0]
    assert await wrong_figures(resources) == []


async def test_deletion_goes_on_where_it_was_out_of_time(
    user: dict[str, Any], resources: Resources
):
    await add_reviews(resources, user["id"], 2 * BATCH + 2)
    service = DeletionService(resources)
    async with resources["sessions"].write.begin() as session:
        await session.execute(update(User).values(deleted_at=User.created_at))
    left = []
    for _ in range(4):
        await service.delete_all(0)
        async with resources["sessions"].current() as session:
            left.append(await session.scalar(select(func.count()).select_from(Review)))

    assert left == [BATCH + 2, 2, 0, 0]
    assert await wrong_figures(resources) == []
    assert (await counts(resources))[0] == 0


async def test_account_that_is_deleted_while_it_writes_and_uploads_leaves_nothing(
    client: httpx.AsyncClient, user: dict[str, Any], catalogue: Catalogue, resources: Resources
):
    """An editor, whose covers stay: they belong to their books."""
    books = [(await catalogue.add_book(f"Book {n}"))["id"] for n in range(4)]
    author = await catalogue.add_author()
    cover = image()
    statuses: Counter[int] = Counter()
    for _ in range(4):
        await UserService(resources).set_role(REGISTER["email"], Role.EDITOR)
        token = (await tokens_of(client))["access_token"]
        own = bearing(token)
        made = await client.post(f"/v1/books/{books[0]}/reviews", json=REVIEW, headers=own)
        review = f"/v1/books/{books[0]}/reviews/{made.json()['id']}"
        responses = await asyncio.gather(
            *(client.post(f"/v1/books/{id}/reviews", json=REVIEW, headers=own) for id in books[1:]),
            client.patch(review, json={"rating": 1}, headers=own),
            delete(client, token),
            client.put(
                f"/v1/books/{books[0]}/cover",
                content=cover,
                headers=own | {"Content-Type": "image/png"},
            ),
            client.delete(review, headers=own),
            *(client.post(f"/v1/books/{id}/reviews", json=REVIEW, headers=own) for id in books[1:]),
            client.post("/v1/books", json={"title": "B", "author_ids": [author]}, headers=own),
            client.get("/v1/users/me/dashboard", headers=own),
        )
        statuses.update(response.status_code for response in responses)
        await clear(client, resources)
        async with resources["sessions"].current() as session:
            left = await session.scalar(select(func.count()).select_from(Review))

        assert left == 0
        assert await wrong_figures(resources) == []
        await client.post("/v1/users", json=REGISTER)
    assert set(statuses) <= {200, 201, 204, 401, 404, 409}, statuses
    assert statuses[204] >= 4


@mariadb_only
@pytest.mark.parametrize("what", ["new review", "new rating"])
async def test_figures_stay_exact_where_another_transaction_is_not_finished(
    user: dict[str, Any], resources: Resources, what: str
):
    """A review that is being written when the account ends, and one whose rating changes."""
    await add_reviews(resources, user["id"], 1)
    async with resources["sessions"].write.begin() as session:
        await session.execute(update(User).values(deleted_at=User.created_at))
        if what == "new review":
            await session.execute(delete_rows(Review))
            await session.execute(update(Book).values(ratings_count=0, ratings_sum=0))

    async with resources["sessions"].write() as other:
        book_id = await other.scalar(select(Book.id).with_for_update())
        if what == "new review":
            review = {"book_id": book_id, "user_id": user["id"], "rating": 4, "text": "Read."}
            await other.execute(insert(Review), [review])
            await other.execute(update(Book).values(ratings_count=1, ratings_sum=4))
        else:
            await other.execute(update(Review).values(rating=1))
            await other.execute(update(Book).values(ratings_sum=1))
        rest = asyncio.create_task(DeletionService(resources).delete_rest(user["id"], 60))
        await until_somebody_waits(resources)
        await other.commit()
    await rest

    assert await wrong_figures(resources) == []
    assert (await counts(resources))[0] == 0


async def test_review_of_an_account_that_is_gone_is_a_conflict(
    user: dict[str, Any], resources: Resources, catalogue: Catalogue, settings: Settings
):
    """As in a request that was authenticated before."""
    book = await catalogue.add_book()
    reviewer = UserRead(**user)
    async with resources["sessions"].write.begin() as session:
        await session.execute(delete_rows(User).where(User.id == user["id"]))
    app = create_app(settings)

    @app.post("/late")
    async def late() -> None:
        async with resources["sessions"].write() as session:
            service = ReviewService(session, resources)
            await service.create(book["id"], reviewer, ReviewCreate.model_validate(REVIEW))

    async with client_of(app, resources) as client:
        response = await client.post("/late")

    assert response.status_code == 409
    assert "deleted" in response.json()["detail"]
    assert await wrong_figures(resources) == []


async def test_reviews_are_exported_in_pages_each_once(
    client: httpx.AsyncClient, user: dict[str, Any], resources: Resources
):
    await add_reviews(resources, user["id"], 230)
    token = (await tokens_of(client))["access_token"]
    exported = await client.get("/v1/users/me/export", headers=bearing(token))

    books = [review["book_id"] for review in exported.json()["reviews"]]
    assert len(books) == 230
    assert books == sorted(set(books))
