from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from app.schemas.base import OMITTED, Body, Text
from app.schemas.page import After, Limit

ParcelSort = Literal[
    "id",
    "-id",
    "number",
    "-number",
    "status",
    "-status",
    "price",
    "-price",
    "weight",
    "-weight",
    "fragile",
    "-fragile",
    "sent_at",
    "-sent_at",
    "due",
    "-due",
    "note",
    "-note",
]
Money = Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=2, examples=["9.90"])]
Kilograms = Annotated[float, Field(ge=0, examples=[0.5])]
Note = Annotated[Text, Field(min_length=1, max_length=500, examples=["Ring twice"])]


class Status(StrEnum):
    PACKED = "packed"
    SENT = "sent"
    ARRIVED = "arrived"


class ParcelRead(BaseModel):
    id: int
    number: UUID
    status: Status
    price: Decimal
    weight: float
    fragile: bool
    sent_at: datetime
    due: date | None
    note: str | None
    version: int
    created_at: datetime
    updated_at: datetime


class ParcelCreate(Body):
    number: UUID
    status: Status = Status.PACKED
    price: Money
    weight: Kilograms = 0
    fragile: bool = False
    sent_at: datetime
    due: date | None = None
    note: Note | None = None


class ParcelUpdate(Body):
    """Only what is sent changes; null clears what may be empty."""

    status: Status = OMITTED
    price: Money = OMITTED
    weight: Kilograms = OMITTED
    fragile: bool = OMITTED
    sent_at: datetime = OMITTED
    due: date | None = OMITTED
    note: Note | None = OMITTED


class ParcelQuery(BaseModel):
    limit: Limit = 20
    after: After = None
    status: Status | None = None
    price_from: Money | None = None
    sent_from: datetime | None = None
    sort: ParcelSort = "id"
