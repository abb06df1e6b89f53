from fastapi import APIRouter

from app.dependencies import Rankings
from app.routing import Route, problems
from app.schemas.book import Language
from app.schemas.page import Limit
from app.schemas.ranking import BookRanking

router = APIRouter(prefix="/v1/rankings", tags=["rankings"], route_class=Route)


@router.get("/books", responses=problems())
async def get_book_ranking(
    rankings: Rankings, limit: Limit = 10, language: Language | None = None
) -> BookRanking:
    return await rankings.books(limit, language)
