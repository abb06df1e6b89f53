from fastapi import APIRouter

from app.sample.dependencies import Offers
from app.schemas.offer import OffersRead
from chassis.http.dependencies import Id
from chassis.http.openapi import problems
from chassis.http.routing import Route
from chassis.limits.route_limits import limited

router = APIRouter(prefix="/v1/books/{book_id}/offers", tags=["offers"], route_class=Route)


@router.get("", responses=problems(404))
@limited("reads", cost=lambda settings: len(settings.offers.all))
async def get_offers(book_id: Id, offers: Offers) -> OffersRead:
    """Get the current prices of a book.

    Booksellers that do not respond in time are named.
    """
    return await offers.of_book(book_id)
