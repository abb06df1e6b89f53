from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from chassis.clock import now
from chassis.database.columns import Base, Id, UTCDateTime


class AuditEvent(Base):
    """A security event that changed something, written with the change; nothing changes the row but
    the deletion of its account, which takes the client's address out.
    """

    __tablename__ = "audit_events"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    event: Mapped[str] = mapped_column(String(40))
    # No foreign keys: a row outlives what it is about.
    account_id: Mapped[int] = mapped_column(BigInteger)
    # The account that did it; NULL for a command.
    actor_id: Mapped[int | None] = mapped_column(BigInteger)
    session_id: Mapped[int | None] = mapped_column(BigInteger)
    client: Mapped[str | None] = mapped_column(String(64))
    request_id: Mapped[str | None] = mapped_column(String(64))
    details: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=now)

    __table_args__ = (
        Index(None, "account_id", "created_at"),
        Index(None, "actor_id"),
        Index(None, "created_at"),
        Base.__table_args__,
    )
