from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from chassis.schemas.fields import OMITTED, Body, Id, Money, Text, Whole
from chassis.schemas.page import After, Limit

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
Kilograms = Annotated[float, Field(ge=0, examples=[0.5])]
Note = Annotated[str, Text(max_length=500), Field(examples=["Ring twice"])]
Greeting = Annotated[
    str, Text(max_length=500, multiline=True), Field(examples=["Many happy returns\nof the day"])
]


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
    greeting: str | None
    payer_id: int | None
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
    greeting: Greeting | None = None
    payer_id: Id | None = None


class PurchaseUpdate(Body):
    """Only what is sent changes; null clears what may be empty."""

    status: Status = OMITTED
    total: Money = OMITTED
    weight: Kilograms = OMITTED
    gift: bool = OMITTED
    placed_at: datetime = OMITTED
    due: date | None = OMITTED
    note: Note | None = OMITTED
    greeting: Greeting | None = OMITTED
    payer_id: Id | None = OMITTED


class PurchaseQuery(BaseModel):
    limit: Limit = 20
    after: After = None
    status: Status | None = None
    total_from: Money | None = None
    placed_from: datetime | None = None
    note: Note | None = None
    payer_id: Whole[Id] | None = None
    sort: PurchaseSort = "id"


class Total(BaseModel):
    status: Status
    count: int = Field(examples=[3])
    total: Decimal = Field(examples=["29.70"])


class Totals(BaseModel):
    items: list[Total]


class Tracking(BaseModel):
    """What the carrier has responded; None if it did not."""

    status: int | None = Field(examples=[200])


class ReceiptRead(BaseModel):
    bytes: int = Field(examples=[31_204])
