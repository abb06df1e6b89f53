from datetime import datetime

from sqlalchemy import Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from chassis.clock import now
from chassis.database.columns import Base, Id, UTCDateTime


class OutboxEntry(Base):
    """Work that must happen, written with its cause; its row goes when it is done."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    key: Mapped[str] = mapped_column(String(100), unique=True)
    job: Mapped[str] = mapped_column(String(50))
    payload: Mapped[str] = mapped_column(Text)
    request_id: Mapped[str | None] = mapped_column(String(64))
    attempts: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[datetime] = mapped_column(UTCDateTime)
    dead_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    error: Mapped[str | None] = mapped_column(String(500))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=now)

    __table_args__ = (
        Index(None, "dead_at", "due_at"),
        # A worker after the end of its lease must not meet another job under the id that it knows.
        Base.__table_args__ | {"sqlite_autoincrement": True},
    )
