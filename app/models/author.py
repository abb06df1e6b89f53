from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from chassis.database.columns import Base, Id, Versioned


class Author(Versioned, Base):
    __tablename__ = "authors"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(300), unique=True)
