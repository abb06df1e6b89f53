from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.cache import Cache
from app.errors import Conflict, Forbidden, NotFound
from app.etag import etag_of
from app.idempotency import ALWAYS, Once
from app.models import Book, Review, User
from app.schemas.page import Page
from app.schemas.review import ReviewCreate, ReviewQuery, ReviewRead, ReviewUpdate
from app.schemas.user import UserRead
from app.services.keyset import Sort
from app.services.preconditions import UNCONDITIONAL, Preconditions
from app.services.transactions import transaction

REVIEWS: Any = Review.__table__
SORT = Sort("-id", REVIEWS.c.id, descending=True)
COLUMNS = [REVIEWS.c[name] for name in ReviewRead.model_fields if name != "user"]
REVIEW = select(*COLUMNS, User.id.label("user_id"), User.name).join(
    User, User.id == REVIEWS.c.user_id
)


class ReviewService:
    """Writes lock the book first: its figures change in the same transaction, one at a time."""

    def __init__(self, session: AsyncSession, cache: Cache) -> None:
        self.session = session
        self.cache = cache

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
            raise _no_book(book_id)
        reviews = [_read(row) for row in rows]
        items = reviews[: query.limit]
        return Page(items=items, next=SORT.cursor(items[-1]) if items != reviews else None)

    async def latest_of(self, user_id: int, limit: int) -> list[ReviewRead]:
        wanted = REVIEW.where(REVIEWS.c.user_id == user_id).order_by(REVIEWS.c.id.desc())
        return [_read(row) for row in await self.session.execute(wanted.limit(limit))]

    @transaction
    async def create(
        self,
        book_id: int,
        user: UserRead,
        body: ReviewCreate,
        once: Once = ALWAYS,
        preconditions: Preconditions = UNCONDITIONAL,
    ) -> ReviewRead:
        if (known := await once.known(self.session, ReviewRead)) is not None:
            return known
        await self._lock_book(book_id)
        if preconditions:
            preconditions.check(etag_of(await self.page(book_id, ReviewQuery())))
        review = Review(book_id=book_id, user_id=user.id, **body.model_dump())
        self.session.add(review)
        try:
            await self.session.flush()
        except IntegrityError as error:
            raise Conflict(f"You have reviewed book {book_id} already; change that") from error
        await self._count(book_id, count=1, total=body.rating)
        return await self._commit(review, once)

    @transaction
    async def update(
        self,
        book_id: int,
        review_id: int,
        user: UserRead,
        body: ReviewUpdate,
        preconditions: Preconditions = UNCONDITIONAL,
    ) -> ReviewRead:
        review = await self._lock(book_id, review_id, user)
        if preconditions:
            preconditions.check(etag_of(await self.get(book_id, review_id)))
        before = review.rating
        for name, value in body.model_dump(exclude_unset=True).items():
            setattr(review, name, value)
        review.version += 1
        await self._count(book_id, count=0, total=review.rating - before)
        return await self._commit(review)

    @transaction
    async def delete(
        self,
        book_id: int,
        review_id: int,
        user: UserRead,
        preconditions: Preconditions = UNCONDITIONAL,
    ) -> None:
        review = await self._lock(book_id, review_id, user)
        if preconditions:
            preconditions.check(etag_of(await self.get(book_id, review_id)))
        await self.session.delete(review)
        await self._count(book_id, count=-1, total=-review.rating)
        async with self.cache.invalidating(*_tags(book_id)):
            await self.session.commit()

    async def _lock_book(self, book_id: int) -> None:
        if await self.session.scalar(_book(book_id).with_for_update()) is None:
            raise _no_book(book_id)

    async def _lock(self, book_id: int, review_id: int, user: UserRead) -> Review:
        await self._lock_book(book_id)
        review = await self.session.get(Review, review_id)
        if review is None or review.book_id != book_id:
            raise _no_review(book_id, review_id)
        if review.user_id != user.id:
            raise Forbidden("This is the review of somebody else")
        return review

    async def _count(self, book_id: int, count: int, total: int) -> None:
        if not count and not total:
            return
        figures = {
            Book.ratings_count: Book.ratings_count + count,
            Book.ratings_sum: Book.ratings_sum + total,
            Book.version: Book.version + 1,
        }
        await self.session.execute(
            update(Book)
            .where(Book.id == book_id)
            .values(figures)
            .execution_options(synchronize_session=False)
        )

    async def _commit(self, review: Review, once: Once = ALWAYS) -> ReviewRead:
        await self.session.flush()
        read = await self.get(review.book_id, review.id)
        await once.keep(self.session, read)
        async with self.cache.invalidating(*_tags(read.book_id)):
            await self.session.commit()
        return read


def _book(book_id: int) -> Any:
    return select(Book.id).where(Book.id == book_id)


def _tags(book_id: int) -> list[str]:
    return ["books", f"book:{book_id}", f"reviews:{book_id}"]


def _no_book(book_id: int) -> NotFound:
    return NotFound(f"Book {book_id} does not exist")


def _no_review(book_id: int, review_id: int) -> NotFound:
    return NotFound(f"Review {review_id} of book {book_id} does not exist")


def _read(row: Any) -> ReviewRead:
    values = dict(row._mapping)
    user = {"id": values.pop("user_id"), "name": values.pop("name")}
    return ReviewRead(user=user, **values)
