from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import ForeignKey, MetaData, Numeric, String, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from chassis.database.columns import Base, Id, UTCDateTime, Versioned


class OwnBase(Base):
    """Tables of the tests, which no migration makes."""

    __abstract__ = True
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)


class Payer(Versioned, OwnBase):
    __tablename__ = "payers"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(300), unique=True)


class Purchase(Versioned, OwnBase):
    __tablename__ = "purchases"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    number: Mapped[UUID] = mapped_column(Uuid(native_uuid=False), unique=True)
    status: Mapped[str] = mapped_column(String(20), index=True)
    total: Mapped[Decimal] = mapped_column(Numeric(12, 2), index=True)
    weight: Mapped[float] = mapped_column(index=True)
    gift: Mapped[bool] = mapped_column(index=True)
    placed_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)
    due: Mapped[date | None] = mapped_column(index=True)
    note: Mapped[str | None] = mapped_column(String(500), index=True)
    greeting: Mapped[str | None] = mapped_column(String(500))
    payer_id: Mapped[int | None] = mapped_column(ForeignKey("payers.id", ondelete="RESTRICT"))
    # The name of its file, whatever other uploads have stored.
    receipt: Mapped[str | None] = mapped_column(String(100), unique=True)
