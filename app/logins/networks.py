"""Networks that an account has logged in from: wrong passwords from others do not lock it there.

They are kept in a table, as they outlive sessions and would fill a Redis that evicts nothing.
"""

from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import LoginNetwork, User
from chassis.clock import now

KNOWN_FOR = timedelta(days=90)  # after the last login from the network
EXACT_TO = timedelta(days=1)  # a login that follows sooner writes nothing
MAX_NETWORKS = 20  # of an account, the latest

NETWORKS: Any = LoginNetwork.__table__


def has_logged_in(network: str) -> ColumnElement[bool]:
    """A column for queries of users: whether each has logged in from this network."""
    return (
        exists()
        .where(
            LoginNetwork.user_id == User.id,
            LoginNetwork.network == network,
            LoginNetwork.seen_at > now() - KNOWN_FOR,
        )
        .correlate(User)
        .label("has_logged_in")
    )


async def record_network(session: AsyncSession, user_id: int, network: str) -> None:
    """Call it in the transaction of a login, which has locked the account."""
    own = LoginNetwork.user_id == user_id
    found = select(LoginNetwork.network, LoginNetwork.seen_at).where(own)
    rows = await session.execute(found.order_by(LoginNetwork.seen_at.desc()))
    seen = {row.network: row.seen_at for row in rows}
    this = own & (LoginNetwork.network == network)
    if network not in seen:
        values = {"user_id": user_id, "network": network, "seen_at": now()}
        await session.execute(insert(NETWORKS).values(values))
        for oldest in [*seen][MAX_NETWORKS - 1 :]:
            await session.execute(delete(NETWORKS).where(own, LoginNetwork.network == oldest))
    elif seen[network] < now() - EXACT_TO:
        await session.execute(update(NETWORKS).where(this).values(seen_at=now()))
