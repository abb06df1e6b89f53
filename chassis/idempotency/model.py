from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from chassis.database.columns import Base, LongText, UTCDateTime


class IdempotencyRecord(Base):
    """The response to a request with an `Idempotency-Key`, for when it is repeated."""

    __tablename__ = "idempotency_records"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    response: Mapped[str] = mapped_column(LongText, default="")
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)
