from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Book
from app.schemas.ranking import BookRanking, RankedBook
from app.services.books import fold, with_authors


class RankingService:
    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def books(self, limit: int, language: str | None = None) -> BookRanking:
        """The best books by Bayesian average.

        Each book is taken to have had, before anybody rated it, as many ratings as the
        average book has, all of them average: a few enthusiasts do not make a classic.
        """
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
            .limit(limit)
            .subquery()
        )
        rows = (
            await self.session.execute(
                with_authors(best, best.c.score.desc(), best.c.id).add_columns(best.c.score)
            )
        ).all()
        scores = {row[0]: float(row.score) for row in rows}
        return BookRanking(
            items=[
                RankedBook(rank=rank, score=round(scores[book.id], 4), book=book)
                for rank, book in enumerate(fold(row[:-1] for row in rows), start=1)
            ]
        )
