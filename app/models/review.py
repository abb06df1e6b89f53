from sqlalchemy import ForeignKey, Index, SmallInteger, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from chassis.database.columns import Base, Id, Versioned


class Review(Versioned, Base):
    __tablename__ = "reviews"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    book_id: Mapped[int] = mapped_column(ForeignKey("books.id", ondelete="CASCADE"))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    rating: Mapped[int] = mapped_column(SmallInteger)
    text: Mapped[str] = mapped_column(Text)

    # The index of a book's reviews ends with their ids, which is their order.
    __table_args__ = (
        UniqueConstraint("user_id", "book_id"),
        Index(None, "book_id"),
        Base.__table_args__,
    )
