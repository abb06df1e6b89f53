"""The groups of settings of the sample."""

from functools import cached_property

from pydantic import BaseModel, Field

from app.sample.sellers import Seller, SellerUrls, read_sellers
from chassis.settings.types import Seconds


class CoversSettings(BaseModel):
    max_body: int = Field(5_242_880, ge=1, description="Largest cover, bytes")
    max_pixels: int = Field(16_000_000, ge=1, description="Largest cover, pixels")


class RankingsSettings(BaseModel):
    ttl: Seconds = Field(
        300, description="Time for which a ranking is cached, s; no write invalidates it"
    )


class OffersSettings(BaseModel):
    sellers: SellerUrls = Field(
        "", description="NAME=URL of each seller, comma-separated; `{isbn13}` is the book's"
    )
    deadline: Seconds = Field(0.8, description="Timeout for each seller, s")

    @cached_property
    def all(self) -> list[Seller]:
        return read_sellers(self.sellers)
