from pydantic import BaseModel, Field

from app.schemas.book import BookRead
from app.schemas.offer import OffersRead
from app.schemas.review import ReviewRead
from app.schemas.user import UserRead


class Recommendation(BaseModel):
    book: BookRead
    offers: OffersRead


class DashboardRead(BaseModel):
    profile: UserRead
    latest_reviews: list[ReviewRead] | None = Field(description="Of this account, latest first")
    recommendations: list[Recommendation] | None = Field(
        description="The best books that it has not reviewed"
    )
    unavailable: list[str] = Field(
        description="Parts that are null, as they failed or took too long",
        examples=[["recommendations"]],
    )
