from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from chassis.database.columns import Base, UTCDateTime


class OneTimeToken(Base):
    """A token of a mailed link; an account has one of each purpose.

    `state` is a digest of the account when the token was made: see
    app/services/accounts/mailed/tokens.py.
    """

    __tablename__ = "one_time_tokens"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    purpose: Mapped[str] = mapped_column(String(20))
    email: Mapped[str | None] = mapped_column(String(254))  # the new address, if it is to change
    state: Mapped[str] = mapped_column(String(64))
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime)

    __table_args__ = (
        UniqueConstraint("user_id", "purpose"),
        Index(None, "expires_at"),
        Base.__table_args__,
    )
