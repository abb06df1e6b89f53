from sqlalchemy import (
    BigInteger,
    Computed,
    ForeignKey,
    Index,
    Numeric,
    SmallInteger,
    String,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.author import Author
from chassis.database.columns import Base, Id, LongText, Versioned


class BookAuthor(Base):
    """The authors of a book, in the order of its title page."""

    __tablename__ = "book_authors"

    book_id: Mapped[int] = mapped_column(
        ForeignKey("books.id", ondelete="CASCADE"), primary_key=True
    )
    author_id: Mapped[int] = mapped_column(
        ForeignKey("authors.id", ondelete="RESTRICT"), primary_key=True
    )
    position: Mapped[int]

    author: Mapped[Author] = relationship(lazy="raise")

    __table_args__ = (Index(None, "author_id", "book_id"), Base.__table_args__)


class Book(Versioned, Base):
    __tablename__ = "books"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    title: Mapped[str] = mapped_column(String(500), index=True)
    isbn13: Mapped[str | None] = mapped_column(String(13), unique=True)
    published_year: Mapped[int | None] = mapped_column(index=True)
    language: Mapped[str | None] = mapped_column(String(35), index=True)
    ratings_count: Mapped[int] = mapped_column(default=0, index=True)
    ratings_sum: Mapped[int] = mapped_column(BigInteger, default=0)
    average_rating: Mapped[float] = mapped_column(
        Numeric(3, 2, asdecimal=False),
        Computed(
            "coalesce(round(ratings_sum * 1.0 / nullif(ratings_count, 0), 2), 0)", persisted=True
        ),
        index=True,
    )
    # Title and author names as `search_words` splits them, for full-text search.
    words: Mapped[str] = mapped_column(LongText, deferred=True, deferred_raiseload=True)
    # The version of that rule; a job splits again what an older one has split.
    words_rule: Mapped[int] = mapped_column(SmallInteger, server_default="0", index=True)
    # Id of the row in the imported file, by which a further import recognises the book.
    source_id: Mapped[int | None] = mapped_column(BigInteger, unique=True)

    book_authors: Mapped[list[BookAuthor]] = relationship(
        lazy="raise",
        order_by=BookAuthor.position,
        cascade="all, delete-orphan",
        passive_deletes=True,
    )

    # On SQLite the migration makes an FTS5 table of the same words.
    __table_args__ = (
        Index("ix_books_words", "words", mariadb_prefix="FULLTEXT").ddl_if(dialect="mariadb"),
        Base.__table_args__,
    )
