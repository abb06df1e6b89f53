from pydantic import BaseModel, Field

from app.schemas.book import BookRead


class RankedBook(BaseModel):
    rank: int = Field(examples=[1])
    score: float = Field(description="Bayesian average of its ratings, 1 to 5", examples=[4.12])
    book: BookRead


class BookRanking(BaseModel):
    items: list[RankedBook]
