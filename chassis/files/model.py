from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from chassis.clock import now
from chassis.database.columns import Base, UTCDateTime


class Orphan(Base):
    """Files that no row refers to; clients may still have valid URLs of them."""

    __tablename__ = "orphans"

    key: Mapped[str] = mapped_column(String(100), primary_key=True)
    seen_at: Mapped[datetime] = mapped_column(UTCDateTime, default=now)
