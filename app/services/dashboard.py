import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from redis.exceptions import RedisError
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app.models import Review
from app.schemas.dashboard import DashboardRead, Recommendation
from app.schemas.review import ReviewRead
from app.schemas.user import UserRead
from app.services.offers import OfferService
from app.services.rankings import RankingService
from app.services.reviews import ReviewService
from chassis.errors import AppError
from chassis.resources import Resources
from chassis.schemas.page import MAX_LIMIT

LATEST = 5
RECOMMENDED = 3
DEADLINE = 2  # s; for each part

T = TypeVar("T")

log = logging.getLogger("app.dashboard")


class DashboardService:
    """Loads independent parts concurrently, each with a session of its own."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.sessions = resources["sessions"]
        self.rankings = RankingService(resources)
        self.offers = OfferService(resources)

    async def of_user(self, user: UserRead) -> DashboardRead:
        latest, recommended = await asyncio.gather(
            _or_none("latest_reviews", self._latest_reviews(user.id)),
            _or_none("recommendations", self._recommendations(user.id)),
        )
        parts = {"latest_reviews": latest, "recommendations": recommended}
        return DashboardRead(
            profile=user,
            latest_reviews=latest,
            recommendations=recommended,
            unavailable=[name for name, part in parts.items() if part is None],
        )

    async def _latest_reviews(self, user_id: int) -> list[ReviewRead]:
        async with self.sessions.read() as session:
            return await ReviewService(session, self.resources).latest_of(user_id, LATEST)

    async def _recommendations(self, user_id: int) -> list[Recommendation]:
        ranking = await self.rankings.books(MAX_LIMIT)
        ids = [ranked.book.id for ranked in ranking.items]
        own = select(Review.book_id).where(Review.user_id == user_id, Review.book_id.in_(ids))
        async with self.sessions.read() as session:
            reviewed = set(await session.scalars(own))
        best = [ranked.book for ranked in ranking.items if ranked.book.id not in reviewed]
        books = best[:RECOMMENDED]
        offers = await asyncio.gather(*(self.offers.of(book, DEADLINE / 2) for book in books))
        return [
            Recommendation(book=book, offers=found)
            for book, found in zip(books, offers, strict=True)
        ]


async def _or_none(name: str, part: Coroutine[Any, Any, T]) -> T | None:
    try:
        async with asyncio.timeout(DEADLINE):
            return await part
    except (AppError, SQLAlchemyError, RedisError, OSError) as error:
        log.warning("The dashboard is without %s: %r", name, error)
        return None
