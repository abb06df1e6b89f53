"""Many books at once, straight into the database: what lists are tested on."""

from random import Random

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Author, Book, BookAuthor
from app.models.full_text import search_words

LANGUAGES = ("eng", "fre", "jpn", None)


async def add_books(session: AsyncSession, count: int, authors: int = 7) -> None:
    """Titles and figures that repeat, so that lists need their second sort column."""
    random = Random(count)
    await session.execute(insert(Author), [{"name": f"Author {n}"} for n in range(authors)])
    author_ids = [*(await session.scalars(Author.__table__.select().with_only_columns(Author.id)))]
    titles = [f"Title {random.randrange(count // 3 + 1):05}" for _ in range(count)]
    await session.execute(
        # With NULL in each row that has it, so that all rows are one statement.
        insert(Book).execution_options(render_nulls=True),
        [
            {
                "title": title,
                "published_year": random.choice([None, -750, *range(1800, 2000)]),
                "language": random.choice(LANGUAGES),
                "ratings_count": (rated := random.randrange(20)),
                "ratings_sum": random.randint(rated, 5 * rated),
                **search_words(title, []),
            }
            for title in titles
        ],
    )
    book_ids = await session.scalars(Book.__table__.select().with_only_columns(Book.id))
    await session.execute(
        insert(BookAuthor),
        [
            {"book_id": book_id, "author_id": author_id, "position": place}
            for book_id in book_ids
            for place, author_id in enumerate(random.sample(author_ids, random.randint(1, 3)))
        ],
    )
    await session.commit()
