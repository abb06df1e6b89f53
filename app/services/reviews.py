from functools import partial
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Book, BookAuthor, Review, User
from app.schemas.review import ReviewCreate, ReviewQuery, ReviewRead, ReviewUpdate
from app.schemas.user import UserRead
from app.services.book_queries import no_book
from app.services.cache_tags import tags_of_book
from chassis.database.errors import is_broken_reference
from chassis.database.keyset import Sort
from chassis.database.transactions import retry_on_deadlock
from chassis.errors import Conflict, Forbidden, NotFound
from chassis.http.etag import etag_of
from chassis.http.preconditions import UNCONDITIONAL, Preconditions
from chassis.idempotency.requests import NO_KEY, IdempotentRequest
from chassis.resources import Resources
from chassis.schemas.fields import differing
from chassis.schemas.page import Page

REVIEWS: Any = Review.__table__
SORT = Sort("-id", REVIEWS.c.id, descending=True)
BY_BOOK = Sort("book_id", REVIEWS.c.book_id)  # of one account
COLUMNS = [REVIEWS.c[name] for name in ReviewRead.model_fields if name != "user"]
REVIEW = select(*COLUMNS, User.id.label("user_id"), User.name).join(
    User, User.id == REVIEWS.c.user_id
)


class ReviewService:
    """Writes lock the book first: its figures change in the same transaction, one at a time."""

    def __init__(self, session: AsyncSession, resources: Resources) -> None:
        self.session = session
        self.cache = resources["cache"]

    async def get(self, book_id: int, review_id: int) -> ReviewRead:
        wanted = REVIEW.where(REVIEWS.c.id == review_id, REVIEWS.c.book_id == book_id)
        row = (await self.session.execute(wanted)).first()
        if row is None:
            raise _no_review(book_id, review_id)
        return _read(row)

    async def page(self, book_id: int, query: ReviewQuery) -> Page[ReviewRead]:
        wanted = REVIEW.where(REVIEWS.c.book_id == book_id).order_by(*SORT.by(REVIEWS))
        if query.after is not None:
            wanted = wanted.where(SORT.after()).params(SORT.cursor_params(query.after))
        rows = (await self.session.execute(wanted.limit(query.limit + 1))).all()
        if not rows and await self.session.scalar(_book(book_id)) is None:
            raise no_book(book_id)
        return SORT.page([_read(row) for row in rows], query.limit)

    async def latest_of(self, user_id: int, limit: int) -> list[ReviewRead]:
        wanted = REVIEW.where(REVIEWS.c.user_id == user_id).order_by(REVIEWS.c.id.desc())
        return [_read(row) for row in await self.session.execute(wanted.limit(limit))]

    async def page_of(self, user_id: int, query: ReviewQuery) -> Page[ReviewRead]:
        """By book, as the index of an account's reviews has them."""
        wanted = REVIEW.where(REVIEWS.c.user_id == user_id).order_by(*BY_BOOK.by(REVIEWS))
        if query.after is not None:
            wanted = wanted.where(BY_BOOK.after()).params(BY_BOOK.cursor_params(query.after))
        rows = await self.session.execute(wanted.limit(query.limit + 1))
        return BY_BOOK.page([_read(row) for row in rows], query.limit)

    @retry_on_deadlock
    async def create(
        self,
        book_id: int,
        user: UserRead,
        body: ReviewCreate,
        idempotent: IdempotentRequest = NO_KEY,
        preconditions: Preconditions = UNCONDITIONAL,
    ) -> ReviewRead:
        work = partial(self._create, book_id, user, body, preconditions)
        review, is_new = await idempotent.run(self.session, ReviewRead, work)
        if is_new:
            tags = await self._tags_of_book(book_id)
            async with self.cache.invalidating(f"reviews:{book_id}", *tags):
                await self.session.commit()
        return review

    @retry_on_deadlock
    async def update(
        self,
        book_id: int,
        review_id: int,
        user: UserRead,
        body: ReviewUpdate,
        preconditions: Preconditions = UNCONDITIONAL,
    ) -> ReviewRead:
        review = await self._lock(book_id, review_id, user, preconditions)
        if not (changes := differing(review, body.model_dump(exclude_unset=True))):
            return await self.get(book_id, review_id)
        difference = changes.get("rating", review.rating) - review.rating
        for name, value in changes.items():
            setattr(review, name, value)
        review.version += 1
        tags: set[str] = set()
        if difference:
            await self._add_rating(book_id, difference)
            tags = await self._tags_of_book(book_id)
        await self.session.flush()
        stored = await self.get(book_id, review_id)
        async with self.cache.invalidating(f"reviews:{book_id}", *tags):
            await self.session.commit()
        return stored

    @retry_on_deadlock
    async def delete(
        self,
        book_id: int,
        review_id: int,
        user: UserRead,
        preconditions: Preconditions = UNCONDITIONAL,
    ) -> None:
        review = await self._lock(book_id, review_id, user, preconditions)
        await self.session.delete(review)
        await self._add_rating(book_id, -review.rating, count=-1)
        tags = await self._tags_of_book(book_id)
        async with self.cache.invalidating(f"reviews:{book_id}", *tags):
            await self.session.commit()

    async def _lock_book(self, book_id: int) -> None:
        if await self.session.scalar(_book(book_id).with_for_update()) is None:
            raise no_book(book_id)

    async def _lock(
        self, book_id: int, review_id: int, user: UserRead, preconditions: Preconditions
    ) -> Review:
        await self._lock_book(book_id)
        review = await self.session.get(Review, review_id)
        if review is None or review.book_id != book_id:
            raise _no_review(book_id, review_id)
        if review.user_id != user.id:
            raise Forbidden("This is the review of another account")
        if preconditions:
            preconditions.check(etag_of(await self.get(book_id, review_id)))
        return review

    async def _create(
        self, book_id: int, user: UserRead, body: ReviewCreate, preconditions: Preconditions
    ) -> ReviewRead:
        await self._lock_book(book_id)
        if preconditions:
            preconditions.check(etag_of(await self.page(book_id, ReviewQuery())))
        review = Review(book_id=book_id, user_id=user.id, **body.model_dump())
        self.session.add(review)
        try:
            await self.session.flush()
        except IntegrityError as error:
            if is_broken_reference(error):  # the account was deleted meanwhile
                raise
            raise Conflict(f"You have reviewed book {book_id} already; change that") from error
        await self._add_rating(book_id, body.rating, count=1)
        return await self.get(book_id, review.id)

    async def _add_rating(self, book_id: int, rating: int, count: int = 0) -> None:
        figures = {
            Book.ratings_count: Book.ratings_count + count,
            Book.ratings_sum: Book.ratings_sum + rating,
            Book.version: Book.version + 1,
        }
        await self.session.execute(
            update(Book)
            .where(Book.id == book_id)
            .values(figures)
            .execution_options(synchronize_session=False)
        )

    async def _tags_of_book(self, book_id: int) -> set[str]:
        links = select(Book.language, BookAuthor.author_id).outerjoin(BookAuthor)
        rows = (await self.session.execute(links.where(Book.id == book_id))).all()
        return tags_of_book(book_id, rows[0].language, [row.author_id for row in rows])


def _book(book_id: int) -> Any:
    return select(Book.id).where(Book.id == book_id)


def _no_review(book_id: int, review_id: int) -> NotFound:
    return NotFound(f"Review {review_id} of book {book_id} does not exist")


def _read(row: Any) -> ReviewRead:
    values = dict(row._mapping)
    user = {"id": values.pop("user_id"), "name": values.pop("name")}
    return ReviewRead(user=user, **values)
