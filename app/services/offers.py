import asyncio
import logging
import time
from functools import partial

import httpx2
from pydantic import ValidationError

from app.cache import Cache
from app.database import Sessions
from app.errors import NotFound, Unavailable
from app.schemas.book import BookRead
from app.schemas.offer import OfferRead, OffersRead, SellerOffer
from app.services.books import BookService
from app.settings import OffersSettings

TTL = 30  # s
GRACE = 0.05  # s

log = logging.getLogger("app.offers")


class OfferService:
    """Asks all sellers at once: the slowest within its deadline is what a client waits for."""

    def __init__(
        self, sessions: Sessions, cache: Cache, http: httpx2.AsyncClient, settings: OffersSettings
    ) -> None:
        self.sessions = sessions
        self.cache = cache
        self.http = http
        self.sellers = settings.all
        self.deadline = settings.deadline

    async def of_book(self, book_id: int) -> OffersRead:
        # A session of its own, whose connection is back before anybody is asked.
        async with self.sessions.read() as session:
            book = await BookService(session, self.cache).get(book_id)
        return await self.of(book)

    async def of(self, book: BookRead, deadline: float | None = None) -> OffersRead:
        """`deadline`: of each seller, s; at most OFFERS_DEADLINE."""
        deadline = min(deadline or self.deadline, self.deadline)
        urls = {seller.name: seller.url_of(book.isbn13, book.id) for seller in self.sellers}
        asked = [self._ask(name, url, book, deadline) for name, url in urls.items() if url]
        answers = await asyncio.gather(*asked)
        offers = [answer for answer in answers if isinstance(answer, OfferRead)]
        return OffersRead(
            book_id=book.id,
            offers=sorted(offers, key=lambda offer: (offer.currency, offer.price)),
            unavailable=[answer for answer in answers if isinstance(answer, str)],
        )

    async def _ask(
        self, seller: str, url: str, book: BookRead, deadline: float
    ) -> OfferRead | str | None:
        """None where there is no offer, and the name of a seller that did not tell."""
        ends_at = time.perf_counter() + deadline
        try:
            # Around the cache, which may wait for another process that asks the same; not before
            # the client gives up by itself, which is how it learns that a seller hangs.
            async with asyncio.timeout(deadline + GRACE):
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
            log.info("%s is unavailable: %s", seller, error or "too late")
            return seller
        return OfferRead(seller=seller, **offer.model_dump())

    async def _load(self, seller: str, url: str, ends_at: float) -> SellerOffer:
        try:
            left = ends_at - time.perf_counter()
            answer = await self.http.get(url, extensions={"deadline": left})
            if answer.status_code == 404:
                raise NotFound(f"{seller} has no offer")
            return SellerOffer.model_validate_json(answer.raise_for_status().content)
        except httpx2.HTTPError as error:
            raise Unavailable(f"{type(error).__name__}: {error}") from error
        except ValidationError as error:
            raise Unavailable(f"no offer, in {error.error_count()} places") from error
