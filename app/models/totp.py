from sqlalchemy import BigInteger, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from chassis.database.columns import Base


class TotpSecret(Base):
    """What an account shares with its authenticator app: see chassis/auth/totp.py.

    It is in force where `User.totp` is true; else its account has not confirmed it.
    """

    __tablename__ = "totp_secrets"

    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    secret: Mapped[str] = mapped_column(String(200))  # encrypted
    # The time step of the latest code that was accepted: no other of it or before it is.
    used_step: Mapped[int] = mapped_column(BigInteger, default=0)


class RecoveryCode(Base):
    """In place of a lost app; a used one is deleted."""

    __tablename__ = "recovery_codes"

    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
