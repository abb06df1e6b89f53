from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from app.schemas.base import OMITTED, Body, Text
from app.schemas.page import After, Limit

PurchaseSort = Literal[
    "id",
    "-id",
    "number",
    "-number",
    "status",
    "-status",
    "total",
    "-total",
    "weight",
    "-weight",
    "gift",
    "-gift",
    "placed_at",
    "-placed_at",
    "due",
    "-due",
    "note",
    "-note",
]
Money = Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=2, examples=["9.90"])]
Kilograms = Annotated[float, Field(ge=0, examples=[0.5])]
Note = Annotated[str, Text(max_length=500), Field(examples=["Ring twice"])]


class Status(StrEnum):
    OPEN = "open"
    PAID = "paid"
    SENT = "sent"


class PurchaseRead(BaseModel):
    id: int
    number: UUID
    status: Status
    total: Decimal = Field(examples=["9.90"])
    weight: float
    gift: bool
    placed_at: datetime
    due: date | None
    note: str | None
    version: int
    created_at: datetime
    updated_at: datetime


class PurchaseCreate(Body):
    number: UUID
    status: Status = Status.OPEN
    total: Money
    weight: Kilograms = 0
    gift: bool = False
    placed_at: datetime
    due: date | None = None
    note: Note | None = None


class PurchaseUpdate(Body):
    """Only what is sent changes; null clears what may be empty."""

    status: Status = OMITTED
    total: Money = OMITTED
    weight: Kilograms = OMITTED
    gift: bool = OMITTED
    placed_at: datetime = OMITTED
    due: date | None = OMITTED
    note: Note | None = OMITTED


class PurchaseQuery(BaseModel):
    limit: Limit = 20
    after: After = None
    status: Status | None = None
    total_from: Money | None = None
    placed_from: datetime | None = None
    sort: PurchaseSort = "id"
