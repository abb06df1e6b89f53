from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base


class CacheEpoch(Base):
    """One row. Raising its number makes every cache entry of before worthless."""

    __tablename__ = "cache_epoch"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int]
