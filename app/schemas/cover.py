from typing import Annotated, Literal

from pydantic import BaseModel, Field

Size = Literal["small", "medium", "large"]
Pixels = Annotated[int, Field(examples=[480])]


class CoverImage(BaseModel):
    size: Size
    width: Pixels
    height: Pixels
    bytes: Annotated[int, Field(examples=[31_204])]


class CoverRead(BaseModel):
    book_id: int
    images: list[CoverImage] = Field(description="WebP, the largest first")
