import secrets
from datetime import datetime

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from chassis.clock import now
from chassis.database.columns import Base, Id, UTCDateTime


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    email: Mapped[str] = mapped_column(String(254), unique=True)
    name: Mapped[str] = mapped_column(String(100))
    password_hash: Mapped[str] = mapped_column(String(200))
    role: Mapped[str] = mapped_column(String(20))
    verified_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # its address
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=now)
    # Whoever sets it ends the sessions: no request asks for it but logins.
    disabled_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    # Whether a login needs a second factor: see app/logins/second_factor.py.
    totp: Mapped[bool] = mapped_column(default=False)
    # Since then the row is an empty one, until all that refers to it is deleted: see
    # app/services/accounts/deletion.py.
    deleted_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    __table_args__ = (
        Index(None, "role", "email"),
        Index(None, "disabled_at"),
        Index(None, "deleted_at"),
        Base.__table_args__,
    )


def new_session_id() -> int:
    """Random: ids of sessions cannot be counted, and are not reused after a restore."""
    return secrets.randbelow(2**63 - 1) + 1


class LoginNetwork(Base):
    """A network that an account has logged in from: see app/logins/networks.py."""

    __tablename__ = "login_networks"

    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    network: Mapped[str] = mapped_column(String(64), primary_key=True)
    seen_at: Mapped[datetime] = mapped_column(UTCDateTime)


class UserSession(Base):
    """A login; its access and refresh tokens are valid only while this row exists."""

    __tablename__ = "user_sessions"

    id: Mapped[int] = mapped_column(Id, primary_key=True, default=new_session_id)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    # The client of the login, as app/logins/devices.py reads it.
    user_agent: Mapped[str | None] = mapped_column(String(200))
    address: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=now)
    # The latest refresh: a request with an access token writes nothing.
    used_at: Mapped[datetime] = mapped_column(UTCDateTime, default=now)

    __table_args__ = (Index(None, "user_id"), Index(None, "created_at"), Base.__table_args__)


class RefreshToken(Base):
    """A used one stays, so that its reuse is recognised."""

    __tablename__ = "refresh_tokens"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    session_id: Mapped[int] = mapped_column(ForeignKey("user_sessions.id", ondelete="CASCADE"))
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime)
    used_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    __table_args__ = (Index(None, "session_id"), Index(None, "expires_at"), Base.__table_args__)
