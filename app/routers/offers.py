from fastapi import APIRouter

from app.dependencies import Id, Offers
from app.routing import Route, problems
from app.schemas.offer import OffersRead

router = APIRouter(prefix="/v1/books/{book_id}/offers", tags=["offers"], route_class=Route)


@router.get("", responses=problems(404))
async def get_offers(book_id: Id, offers: Offers) -> OffersRead:
    """What booksellers want for it now; those that do not answer in time are named."""
    return await offers.of_book(book_id)
