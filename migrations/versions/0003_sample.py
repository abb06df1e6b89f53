"""The sample: authors, books with their search words, reviews and covers"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision: str = "0003"
down_revision: str | Sequence[str] | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
LONG_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
TABLE: dict[str, Any] = {
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_nopad_bin",
    "mariadb_engine": "InnoDB",
}
# FTS5 reads the words from `books` itself; these triggers tell its index what changed.
SQLITE_SEARCH = (
    "CREATE VIRTUAL TABLE book_search USING fts5(words, content='books', content_rowid='id', "
    "tokenize=\"unicode61 remove_diacritics 0 tokenchars '_'\")",
    """CREATE TRIGGER book_search_insert AFTER INSERT ON books BEGIN
        INSERT INTO book_search(rowid, words) VALUES (new.id, new.words);
    END""",
    """CREATE TRIGGER book_search_delete AFTER DELETE ON books BEGIN
        INSERT INTO book_search(book_search, rowid, words) VALUES ('delete', old.id, old.words);
    END""",
    """CREATE TRIGGER book_search_update AFTER UPDATE OF words ON books BEGIN
        INSERT INTO book_search(book_search, rowid, words) VALUES ('delete', old.id, old.words);
        INSERT INTO book_search(rowid, words) VALUES (new.id, new.words);
    END""",
)


def upgrade() -> None:
    op.create_table(
        "authors",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", sa.String(300), nullable=False),
        *_versioned(),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name", name="uq_authors_name"),
        sqlite_autoincrement=True,  # a deleted id is not given out again
        **TABLE,
    )
    op.create_table(
        "books",
        sa.Column("id", ID, nullable=False),
        sa.Column("title", sa.String(500), nullable=False),
        sa.Column("isbn13", sa.String(13)),
        sa.Column("published_year", sa.Integer()),
        sa.Column("language", sa.String(35)),
        sa.Column("ratings_count", sa.Integer(), nullable=False),
        sa.Column("ratings_sum", sa.BigInteger(), nullable=False),
        sa.Column(
            "average_rating",
            sa.Numeric(3, 2),
            sa.Computed(
                "coalesce(round(ratings_sum * 1.0 / nullif(ratings_count, 0), 2), 0)",
                persisted=True,
            ),
        ),
        sa.Column("words", LONG_TEXT, nullable=False),
        sa.Column("words_rule", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("source_id", sa.BigInteger()),
        *_versioned(),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("isbn13", name="uq_books_isbn13"),
        sa.UniqueConstraint("source_id", name="uq_books_source_id"),
        sqlite_autoincrement=True,
        **TABLE,
    )
    for column in (
        "title",
        "published_year",
        "language",
        "ratings_count",
        "average_rating",
        "words_rule",
    ):
        op.create_index(f"ix_books_{column}", "books", [column])
    op.create_table(
        "book_authors",
        sa.Column("book_id", ID, nullable=False),
        sa.Column("author_id", ID, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("book_id", "author_id"),
        sa.ForeignKeyConstraint(
            ["book_id"], ["books.id"], name="fk_book_authors_book_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["author_id"], ["authors.id"], name="fk_book_authors_author_id", ondelete="RESTRICT"
        ),
        **TABLE,
    )
    op.create_index("ix_book_authors_author_id_book_id", "book_authors", ["author_id", "book_id"])
    op.create_table(
        "reviews",
        sa.Column("id", ID, nullable=False),
        sa.Column("book_id", ID, nullable=False),
        sa.Column("user_id", ID, nullable=False),
        sa.Column("rating", sa.SmallInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.ForeignKeyConstraint(
            ["book_id"], ["books.id"], name="fk_reviews_book_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_reviews_user_id", ondelete="CASCADE"
        ),
        sa.UniqueConstraint("user_id", "book_id", name="uq_reviews_user_id_book_id"),
        sqlite_autoincrement=True,  # a deleted id is not given out again
        **TABLE,
    )
    op.create_index("ix_reviews_book_id", "reviews", ["book_id"])
    op.create_table(
        "covers",
        sa.Column(
            "book_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.ForeignKey("books.id", name="fk_covers_book_id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("key", sa.String(100), nullable=False),
        sa.PrimaryKeyConstraint("book_id"),
        sa.UniqueConstraint("key", name="uq_covers_key"),
        **TABLE,
    )

    if op.get_bind().dialect.name == "sqlite":
        for statement in SQLITE_SEARCH:
            op.execute(statement)
    else:
        op.execute("CREATE FULLTEXT INDEX ix_books_words ON books (words)")


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TABLE book_search")
    for table in ("covers", "reviews", "book_authors", "books", "authors"):
        op.drop_table(table)


def _versioned() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
    )
