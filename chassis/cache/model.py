from sqlalchemy.orm import Mapped, mapped_column

from chassis.database.columns import Base


class CacheEpoch(Base):
    """One row; see chassis/cache/epoch.py."""

    __tablename__ = "cache_epoch"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int]
