from datetime import datetime

from sqlalchemy import String, Text
from sqlalchemy.dialects.mysql import MEDIUMTEXT
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, UTCDateTime

LONG_TEXT = Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb")


class KeptAnswer(Base):
    """What a request with an `Idempotency-Key` was answered, for when it is repeated."""

    __tablename__ = "kept_answers"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    answer: Mapped[str] = mapped_column(LONG_TEXT, default="")
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)
