from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base


class Cover(Base):
    """Which files are the cover of a book: what another upload has stored is not seen here."""

    __tablename__ = "covers"

    book_id: Mapped[int] = mapped_column(
        ForeignKey("books.id", ondelete="CASCADE"), primary_key=True
    )
    # What the names of its files begin with.
    key: Mapped[str] = mapped_column(String(100), unique=True)
