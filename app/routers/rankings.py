from fastapi import APIRouter

from app.sample.dependencies import Rankings
from app.schemas.book import Language
from app.schemas.ranking import BookRanking
from chassis.http.cached_responses import cached
from chassis.http.openapi import problems
from chassis.http.routing import Route
from chassis.limits.route_limits import limited
from chassis.schemas.page import Limit

router = APIRouter(prefix="/v1/rankings", tags=["rankings"], route_class=Route)


@router.get("/books", responses=problems())
@cached(
    ttl=60,
    stale=60,
    ahead=15,
    max_age=60,
    stale_while_revalidate=300,
)
@limited("reads", cost=5)
async def get_book_ranking(
    rankings: Rankings, limit: Limit = 10, language: Language | None = None
) -> BookRanking:
    """List the best-rated books, of all languages or of one.

    By the Bayesian average of their ratings: a few high ones alone do not lead the list.
    """
    return await rankings.books(limit, language)
