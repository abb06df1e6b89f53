from fastapi import APIRouter

from app.cached_responses import cached
from app.dependencies import Rankings
from app.routing import Route, limited, problems
from app.schemas.book import Language
from app.schemas.page import Limit
from app.schemas.ranking import BookRanking

router = APIRouter(prefix="/v1/rankings", tags=["rankings"], route_class=Route)


@router.get("/books", responses=problems())
@cached(
    ttl=60,
    stale=60,
    ahead=15,
    tags=["books", "author-names"],
    max_age=60,
    stale_while_revalidate=300,
)
@limited("reads", cost=5)
async def get_book_ranking(
    rankings: Rankings, limit: Limit = 10, language: Language | None = None
) -> BookRanking:
    return await rankings.books(limit, language)
