from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from chassis.database.columns import Base, Id, Versioned


class Note(Versioned, Base):
    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    title: Mapped[str] = mapped_column(String(200))
    text: Mapped[str] = mapped_column(Text)
