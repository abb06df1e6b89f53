"""Search words: which rule has split them"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | Sequence[str] | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    # What is there has none of the rules that have numbers: a repeated job splits it again.
    rule = sa.Column("words_rule", sa.SmallInteger(), server_default="0", nullable=False)
    op.add_column("books", rule)
    op.create_index("ix_books_words_rule", "books", ["words_rule"])


def downgrade() -> None:
    op.drop_index("ix_books_words_rule", "books")
    op.drop_column("books", "words_rule")
