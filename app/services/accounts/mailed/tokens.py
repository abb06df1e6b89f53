"""One-time tokens of mailed links: random, hashed at rest, for one account and one purpose."""

import json
import secrets
from datetime import timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any, NamedTuple

from sqlalchemy import RowMapping, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import OneTimeToken, User
from chassis.clock import now
from chassis.database.read_session import ReadSession
from chassis.errors import Invalid

Columns = RowMapping | dict[str, Any]  # of a row of `users`

USERS: Any = User.__table__
TOKENS: Any = OneTimeToken.__table__


class Purpose(StrEnum):
    VERIFY = "verify"
    RESET = "reset"
    EMAIL = "email"


class TokenRefused(Invalid):
    """The same for whatever is wrong with a token."""

    def __init__(self) -> None:
        super().__init__(
            "Is not valid: it has expired, was used, or the account has changed since; "
            "ask for a new mail",
            ("body", "token"),
        )


class Redeemable(NamedTuple):
    user: Columns  # all columns
    email: str | None  # the new address, of Purpose.EMAIL


def state_of(user: Columns) -> str:
    """A digest of all columns of an account.

    A token is valid while the account has the state for which it was made. So a new password,
    address, role or name makes it invalid, as does whatever later becomes a column of `users`, and
    no code that changes accounts needs to know of tokens.
    """
    columns = {name: str(value) for name, value in sorted(user.items())}
    return sha256(json.dumps(columns).encode()).hexdigest()


def digest_of(token: str) -> str:
    """Without salt: a token is random, so its digest cannot be looked up."""
    return sha256(token.encode()).hexdigest()


async def lock_user(session: AsyncSession, **column: object) -> Columns | None:
    """The row of an account by one of its columns."""
    [(name, value)] = column.items()
    found = select(USERS).where(USERS.c[name] == value).with_for_update()
    return (await session.execute(found)).mappings().first()


async def issue(
    session: AsyncSession,
    user: Columns,
    purpose: Purpose,
    ttl: int,
    email: str | None = None,
) -> str:
    """A token, which replaces that of the same purpose; call it with the account locked.

    `ttl`: s.
    """
    token = secrets.token_urlsafe(32)
    own = (TOKENS.c.user_id == user["id"]) & (TOKENS.c.purpose == purpose)
    await session.execute(delete(TOKENS).where(own))
    values = {
        "user_id": user["id"],
        "purpose": purpose,
        "digest": digest_of(token),
        "email": email,
        "state": state_of(user),
        "expires_at": now() + timedelta(seconds=ttl),
    }
    await session.execute(insert(TOKENS).values(values))
    return token


async def find(session: ReadSession, token: str, purpose: Purpose) -> Redeemable | None:
    """What the token is good for now; only `redeem` may change anything on its strength."""
    found = select(USERS, TOKENS.c.email.label("new_email"), TOKENS.c.state, TOKENS.c.expires_at)
    this = (TOKENS.c.digest == digest_of(token)) & (TOKENS.c.purpose == purpose)
    joined = found.join(TOKENS, TOKENS.c.user_id == USERS.c.id).where(this)
    row = (await session.execute(joined)).mappings().first()
    if row is None:
        return None
    return _check({column.name: row[column.name] for column in USERS.c}, row["new_email"], row)


async def redeem(session: AsyncSession, token: str, purpose: Purpose) -> Redeemable:
    """Lock the account and use up its tokens: what follows changes its state in any case.

    Of simultaneous uses of a token the first one gets the lock, and the others find no token.
    Raises TokenRefused.
    """
    this = (TOKENS.c.digest == digest_of(token)) & (TOKENS.c.purpose == purpose)
    user_id = await session.scalar(select(TOKENS.c.user_id).where(this))
    if user_id is None:
        raise TokenRefused
    user = await lock_user(session, id=user_id)
    # After the lock, which whatever writes tokens takes first.
    row = (await session.execute(select(TOKENS).where(this))).mappings().first()
    found = user and row and _check(user, row["email"], row)
    if not found:
        raise TokenRefused
    await session.execute(delete(TOKENS).where(TOKENS.c.user_id == user_id))
    return found


def _check(user: Columns, email: str | None, token: RowMapping) -> Redeemable | None:
    if token["expires_at"] < now() or token["state"] != state_of(user):
        return None
    return Redeemable(user, email)
