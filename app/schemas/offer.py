from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, Field, HttpUrl

Price = Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=2, examples=["12.50"])]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", examples=["EUR"])]


class SellerOffer(BaseModel):
    price: Price
    currency: Currency
    url: HttpUrl


class OfferRead(SellerOffer):
    seller: str = Field(examples=["alpha"])


class OffersRead(BaseModel):
    book_id: int
    offers: list[OfferRead] = Field(description="The cheapest first")
    unavailable: list[str] = Field(
        description="Sellers that did not respond in time with an offer",
        examples=[["beta"]],
    )
