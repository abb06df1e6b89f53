from typing import Any

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Book, BookAuthor, Review
from app.services.cache_tags import tags_of_book

BATCH = 100  # reviews of a transaction, which locks their books

BOOKS: Any = Book.__table__
REVIEWS: Any = Review.__table__
SUBTRACT = (
    update(BOOKS)
    .where(BOOKS.c.id == bindparam("of_book"))
    .values(
        ratings_count=BOOKS.c.ratings_count - 1,
        ratings_sum=BOOKS.c.ratings_sum - bindparam("given"),
        version=BOOKS.c.version + 1,
    )
)


async def delete_reviews(session: AsyncSession, user_id: int) -> tuple[int, set[str]]:
    """A batch of those of an account, with their part in the figures of the books: how many were
    found, and the tags to invalidate.
    """
    own = REVIEWS.c.user_id == user_id
    found = select(REVIEWS.c.book_id).where(own).order_by(REVIEWS.c.book_id).limit(BATCH)
    book_ids = (await session.scalars(found)).all()
    if not book_ids:
        return 0, set()
    # Only with the books locked do ratings stay as they are read.
    books = select(BOOKS.c.id).where(BOOKS.c.id.in_(book_ids)).order_by(BOOKS.c.id)
    await session.execute(books.with_for_update())
    columns = (REVIEWS.c.id, REVIEWS.c.book_id, REVIEWS.c.rating)
    reviews = (
        await session.execute(select(*columns).where(own, REVIEWS.c.book_id.in_(book_ids)))
    ).all()
    if reviews:
        connection = await session.connection()
        figures = [{"of_book": review.book_id, "given": review.rating} for review in reviews]
        await connection.execute(SUBTRACT, figures)
        these = REVIEWS.c.id.in_([review.id for review in reviews])
        await session.execute(delete(REVIEWS).where(these))
    links = select(BOOKS.c.id, BOOKS.c.language, BookAuthor.author_id).outerjoin(BookAuthor)
    tags = {f"reviews:{book_id}" for book_id in book_ids}
    for id, language, author_id in await session.execute(links.where(BOOKS.c.id.in_(book_ids))):
        tags |= tags_of_book(id, language, [] if author_id is None else [author_id])
    return len(book_ids), tags
