"""The second factor of a login: a code of an authenticator app, or a recovery code."""

import logging
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.logins.refusals import OtpRefused
from app.models import RecoveryCode, TotpSecret
from chassis.auth.totp import Unreadable, digest_of, is_totp
from chassis.clock import now
from chassis.resources import Resources

SECRETS: Any = TotpSecret.__table__
CODES: Any = RecoveryCode.__table__

log = logging.getLogger("app.totp")


class SecondFactor:
    """Each code is good once: the database compares and sets, so that of simultaneous uses one
    counts. Call its methods in a transaction that has locked the account.
    """

    def __init__(self, resources: Resources) -> None:
        self.secrets = resources["totp"]
        self.events = resources["security"]

    async def use(self, session: AsyncSession, user_id: int, otp: str) -> None:
        """Use up a code, as `normalize_otp` returns it. Raises OtpRefused."""
        if is_totp(otp):
            used = await self._use_totp(session, user_id, otp)
        else:
            used = await self._use_recovery_code(session, user_id, otp)
        if not used:
            self.events.record("otp_refused", user_id)
            raise OtpRefused

    async def _use_totp(self, session: AsyncSession, user_id: int, code: str) -> bool:
        own = SECRETS.c.user_id == user_id
        secret = await session.scalar(select(SECRETS.c.secret).where(own))
        if secret is None:
            return False
        try:
            step = self.secrets.step_of(secret, code, now())
            renewed = self.secrets.renew(secret)
        except Unreadable:
            log.error("The key of the TOTP secret of account %d is not in TOKENS_OLD_KEYS", user_id)
            return False
        if step is None:
            return False
        unused = update(SECRETS).where(own, SECRETS.c.used_step < step)
        # With the newest key: a new TOKENS_KEY reaches those who log in.
        done: Any = await session.execute(unused.values(used_step=step, secret=renewed))
        return bool(done.rowcount)

    async def _use_recovery_code(self, session: AsyncSession, user_id: int, code: str) -> bool:
        own = CODES.c.user_id == user_id
        this = own & (CODES.c.digest == digest_of(user_id, code))
        done: Any = await session.execute(delete(CODES).where(this))
        if not done.rowcount:
            return False
        left = await session.scalar(select(func.count()).select_from(CODES).where(own))
        await self.events.audit(session, "recovery_code_used", user_id, left=f"{left}")
        return True
