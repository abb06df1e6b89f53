from datetime import datetime

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, UTCDateTime, now


class Cover(Base):
    """Which files are the cover of a book: what another upload has stored is not seen here."""

    __tablename__ = "covers"

    book_id: Mapped[int] = mapped_column(
        ForeignKey("books.id", ondelete="CASCADE"), primary_key=True
    )
    # What the names of its files begin with.
    key: Mapped[str] = mapped_column(String(100), unique=True)


class Orphan(Base):
    """Files that no cover names: whoever was given their address may still use it for a while."""

    __tablename__ = "orphans"

    key: Mapped[str] = mapped_column(String(100), primary_key=True)
    seen_at: Mapped[datetime] = mapped_column(UTCDateTime, default=now)
