from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from chassis.database.columns import Base


class Cover(Base):
    """The files that are the cover of a book, whatever other uploads have stored."""

    __tablename__ = "covers"

    book_id: Mapped[int] = mapped_column(
        ForeignKey("books.id", ondelete="CASCADE"), primary_key=True
    )
    # The prefix of their names.
    key: Mapped[str] = mapped_column(String(100), unique=True)
