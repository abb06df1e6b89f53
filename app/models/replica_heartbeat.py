from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, UTCDateTime


class ReplicaHeartbeat(Base):
    """One row, renewed on the primary: how old it is on a replica is how far that is behind."""

    __tablename__ = "replica_heartbeat"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    beat_at: Mapped[datetime] = mapped_column(UTCDateTime)
