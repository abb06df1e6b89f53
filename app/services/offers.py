import asyncio
import logging
import time
from functools import partial

import httpx2 as httpx
from pydantic import ValidationError

from app.schemas.book import BookRead
from app.schemas.offer import OfferRead, OffersRead, SellerOffer
from app.services.books import BookService
from app.settings import settings_of
from chassis.errors import NotFound, Unavailable
from chassis.resources import Resources
from chassis.tasks.timeout import Timeout

TTL = 30  # s
GRACE = 0.05  # s

log = logging.getLogger("app.offers")


class OfferService:
    """Requests the offers of all sellers concurrently: a client waits for the slowest, at most
    OFFERS_DEADLINE.
    """

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.cache = resources["cache"]
        self.http = resources["http"]
        settings = settings_of(resources).offers
        self.sellers = settings.all
        self.deadline = settings.deadline

    async def of_book(self, book_id: int) -> OffersRead:
        # The connection is back in the pool before any seller is asked.
        async with self.resources["sessions"].read() as session:
            book = await BookService(session, self.resources).get(book_id)
        return await self.of(book)

    async def of(self, book: BookRead, deadline: float | None = None) -> OffersRead:
        """`deadline`: of each seller, s; at most OFFERS_DEADLINE."""
        deadline = min(deadline or self.deadline, self.deadline)
        urls = {seller.name: seller.url_of(book.isbn13, book.id) for seller in self.sellers}
        requests = [self._request(name, url, book, deadline) for name, url in urls.items() if url]
        results = await asyncio.gather(*requests)
        offers = [result for result in results if isinstance(result, OfferRead)]
        return OffersRead(
            book_id=book.id,
            offers=sorted(offers, key=lambda offer: (offer.currency, offer.price)),
            unavailable=[result for result in results if isinstance(result, str)],
        )

    async def _request(
        self, seller: str, url: str, book: BookRead, deadline: float
    ) -> OfferRead | str | None:
        """None where there is no offer; the name of the seller where it did not respond."""
        ends_at = time.perf_counter() + deadline
        try:
            # Around the cache, which may wait for another process with the same request; a little
            # after the client's own deadline, by which its circuit breaker counts a failure.
            with Timeout(deadline + GRACE):
                offer = await self.cache.get_or_load(
                    f"offer:{seller}:{book.id}",
                    SellerOffer,
                    partial(self._load, seller, url, ends_at),
                    ttl=TTL,
                    tags=[f"book:{book.id}"],
                )
        except NotFound:
            return None
        except (Unavailable, TimeoutError) as error:
            log.info("%s is unavailable: %s", seller, error or "timeout")
            return seller
        return OfferRead.model_construct(seller=seller, **vars(offer))

    async def _load(self, seller: str, url: str, ends_at: float) -> SellerOffer:
        try:
            left = ends_at - time.perf_counter()
            response = await self.http.get(url, extensions={"deadline": left})
            if response.status_code == 404:
                raise NotFound(f"{seller} has no offer")
            return SellerOffer.model_validate_json(response.raise_for_status().content)
        except httpx.HTTPError as error:
            raise Unavailable(f"{type(error).__name__}: {error}") from error
        except ValidationError as error:
            raise Unavailable(f"no offer, in {error.error_count()} places") from error
