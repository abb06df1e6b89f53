from app.dependencies import Rankings
from app.routing import Router, problems
from app.schemas.book import Language
from app.schemas.page import Limit
from app.schemas.ranking import BookRanking

router = Router("/v1/rankings", tags=["rankings"])


@router.get("/books", responses=problems())
async def get_book_ranking(
    rankings: Rankings, limit: Limit = 10, language: Language | None = None
) -> BookRanking:
    return await rankings.books(limit, language)
