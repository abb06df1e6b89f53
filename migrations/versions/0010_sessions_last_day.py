"""The index by which sessions past their last day are found"""

from collections.abc import Sequence

from alembic import op

revision: str = "0010"
down_revision: str | Sequence[str] | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_index("ix_user_sessions_created_at", "user_sessions", ["created_at"])


def downgrade() -> None:
    op.drop_index("ix_user_sessions_created_at", "user_sessions")
