from functools import partial

from sqlalchemy import func, select

from app.models import Book
from app.schemas.ranking import BookRanking, RankedBook
from app.services.book_queries import fold, with_authors
from app.settings import settings_of
from chassis.database.engines import Sessions
from chassis.resources import Resources
from chassis.schemas.page import MAX_LIMIT


class RankingService:
    def __init__(self, resources: Resources) -> None:
        self.sessions = resources["sessions"]
        self.cache = resources["cache"]
        self.ttl = settings_of(resources).rankings.ttl

    async def books(self, limit: int, language: str | None = None) -> BookRanking:
        """The best books by Bayesian average.

        The prior of each book is as many ratings as the average book has, all of them average:
        a few high ratings alone do not lead the list.

        No write invalidates a ranking, as every review would: it expires by RANKINGS_TTL.
        """
        # One entry serves every limit. Its load has a session of its own, as it may outlive the
        # request.
        best = await self.cache.get_or_load(
            f"rankings:{language}",
            BookRanking,
            partial(_best_books, self.sessions, language),
            ttl=self.ttl,
            ahead=min(60, self.ttl / 2),
        )
        return BookRanking(items=best.items[:limit])


async def _best_books(sessions: Sessions, language: str | None) -> BookRanking:
    rated = Book.ratings_count > 0
    if language is not None:
        rated &= Book.language == language
    prior = (
        select(
            func.avg(Book.ratings_count).label("weight"),
            (func.sum(Book.ratings_sum) * 1.0 / func.sum(Book.ratings_count)).label("mean"),
        )
        .where(rated)
        .cte("prior")
    )
    score = (prior.c.weight * prior.c.mean + Book.ratings_sum) / (
        prior.c.weight + Book.ratings_count
    )
    best = (
        select(*Book.__table__.c, score.label("score"))
        .join_from(Book, prior, rated)
        .order_by(score.desc(), Book.id)
        .limit(MAX_LIMIT)
        .subquery()
    )
    statement = with_authors(best, best.c.score.desc(), best.c.id).add_columns(best.c.score)
    async with sessions.read() as session:
        rows = (await session.execute(statement)).all()
    scores = {row[0]: float(row.score) for row in rows}
    return BookRanking(
        items=[
            RankedBook(rank=rank, score=round(scores[book.id], 4), book=book)
            for rank, book in enumerate(fold(row[:-1] for row in rows), start=1)
        ]
    )
