from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from chassis.database.columns import Base, UTCDateTime


class ReplicaHeartbeat(Base):
    """One row, renewed on the primary: its age on a replica is the replica's lag."""

    __tablename__ = "replica_heartbeat"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    beat_at: Mapped[datetime] = mapped_column(UTCDateTime)
