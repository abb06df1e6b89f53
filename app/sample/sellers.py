"""Booksellers, as OFFERS_SELLERS names them."""

from typing import Annotated, NamedTuple

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from chassis.settings.urls import is_http_url


class Seller(NamedTuple):
    name: str
    url: str  # with `{isbn13}` or `{book_id}` in its path

    def url_of(self, isbn13: str | None, book_id: int) -> str | None:
        """None where the URL has an ISBN and the book has none."""
        if isbn13 is None and "{isbn13}" in self.url:
            return None
        return self.url.replace("{isbn13}", isbn13 or "").replace("{book_id}", str(book_id))


def read_sellers(text: str) -> list[Seller]:
    """Raises PydanticCustomError."""
    sellers = [Seller(*entry.strip().partition("=")[::2]) for entry in text.split(",") if entry]
    names = [seller.name for seller in sellers]
    if len(set(names)) < len(names) or not all(name.isidentifier() for name in names):
        raise PydanticCustomError("sellers", "is not NAME=URL,NAME=URL, each name once")
    for seller in sellers:
        if not is_http_url(seller.url_of("", 0) or ""):
            raise PydanticCustomError(
                "sellers", f"has for {seller.name} no URL such as https://host/path/{{isbn13}}"
            )
    return sellers


def _seller_urls(text: str) -> str:
    read_sellers(text)
    return text


SellerUrls = Annotated[str, AfterValidator(_seller_urls)]
