"""Jobs that send mails with links; each makes the token of its link.

So no token is in the outbox, and none is stored but as a digest. A job may run twice, after a mail
server that was away or a worker that died: the second run makes another token, which replaces the
first. If both mails arrive, the link of the later one is valid. Their Message-IDs differ, as mail
programs show only one of several mails with the same.
"""

import secrets
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.about import TITLE
from app.models import User
from app.schemas.job import (
    Register,
    SendAddressChanged,
    SendNewAddress,
    SendReset,
    SendTotpChanged,
    SendVerification,
)
from app.schemas.user import Role
from app.services.accounts.mailed.tokens import USERS, Purpose, issue, lock_user, state_of
from app.settings import settings_of
from chassis.database.transactions import retry_on_deadlock
from chassis.job_worker.registry import Handler, JobContext
from chassis.jobs.job import Job
from chassis.resources import Resources

PAGES = {
    Purpose.VERIFY: "/verify",
    Purpose.RESET: "/reset-password",
    Purpose.EMAIL: "/confirm-email",
}


class MailTokenService:
    """Makes tokens: each method is a transaction. None: there is nothing to mail."""

    def __init__(self, resources: Resources) -> None:
        self.sessions = resources["sessions"]
        self.events = resources["security"]
        self.settings = settings_of(resources).users

    @retry_on_deadlock
    async def register(self, job: Register) -> str | None:
        """Make the account, unless there is one; None if that is verified.

        One that is not verified keeps its name and its password: it may be in use, if USERS_VERIFY
        was off. Whoever verifies it needs its password, or has it reset.
        """
        async with self.sessions.write() as session:
            user_id = await self._insert(session, job)
            token = await self._verification(session, job.email)
            if user_id is not None:
                await self.events.audit(session, "registered", user_id)
            await session.commit()
        return token

    async def _insert(self, session: AsyncSession, job: Register) -> int | None:
        user = User(email=job.email, name=job.user_name, role=Role.READER)
        user.password_hash = job.password_hash
        session.add(user)
        try:
            await session.flush()
        except IntegrityError:
            await session.rollback()
            return None
        return user.id

    @retry_on_deadlock
    async def verification(self, email: str) -> str | None:
        async with self.sessions.write() as session:
            token = await self._verification(session, email)
            await session.commit()
        return token

    async def _verification(self, session: AsyncSession, email: str) -> str | None:
        user = await lock_user(session, email=email)
        if user is None or user["verified_at"] is not None:
            return None
        return await issue(session, user, Purpose.VERIFY, self.settings.verify_ttl)

    @retry_on_deadlock
    async def reset(self, email: str) -> str | None:
        async with self.sessions.write() as session:
            user = await lock_user(session, email=email)
            if user is None:
                return None
            token = await issue(session, user, Purpose.RESET, self.settings.reset_ttl)
            await session.commit()
        return token

    @retry_on_deadlock
    async def new_address(self, job: SendNewAddress) -> str | None:
        async with self.sessions.write() as session:
            user = await lock_user(session, id=job.user_id)
            if user is None or state_of(user) != job.state:
                return None
            ttl = self.settings.verify_ttl
            token = await issue(session, user, Purpose.EMAIL, ttl, email=job.email)
            await session.commit()
        return token

    async def is_taken(self, email: str) -> bool:
        async with self.sessions.current() as session:
            return (
                await session.scalar(select(USERS.c.id).where(USERS.c.email == email)) is not None
            )


async def register(context: JobContext, job: Register, key: str) -> None:
    token = await MailTokenService(context.resources).register(job)
    if token is not None:
        await _send_link(context, job.email, Purpose.VERIFY, token, key)
    else:
        await _send(context, job.email, "You have an account already", "account_exists", key)


async def send_verification(context: JobContext, job: SendVerification, key: str) -> None:
    token = await MailTokenService(context.resources).verification(job.email)
    if token is not None:
        await _send_link(context, job.email, Purpose.VERIFY, token, key)


async def send_reset(context: JobContext, job: SendReset, key: str) -> None:
    token = await MailTokenService(context.resources).reset(job.email)
    if token is not None:
        await _send_link(context, job.email, Purpose.RESET, token, key)


async def send_new_address(context: JobContext, job: SendNewAddress, key: str) -> None:
    service = MailTokenService(context.resources)
    if await service.is_taken(job.email):
        return await _send(context, job.email, "You have an account already", "address_taken", key)
    token = await service.new_address(job)
    if token is not None:
        await _send_link(context, job.email, Purpose.EMAIL, token, key)


async def send_address_changed(context: JobContext, job: SendAddressChanged, key: str) -> None:
    await _send(
        context, job.email, "The address of your account has changed", "address_changed", key
    )


async def send_totp_changed(context: JobContext, job: SendTotpChanged, key: str) -> None:
    change = "on" if job.enabled else "off"
    subject = f"The second factor of your account was turned {change}"
    await _send(context, job.email, subject, "totp_changed", key, change=change)


SUBJECTS = {
    Purpose.VERIFY: "Verify your e-mail address",
    Purpose.RESET: "Set a new password",
    Purpose.EMAIL: "Confirm your new e-mail address",
}


async def _send_link(
    context: JobContext, email: str, purpose: Purpose, token: str, key: str
) -> None:
    settings = settings_of(context.resources)
    # In the fragment, which browsers send to no server: it is in no log.
    link = f"{settings.link(PAGES[purpose])}#token={token}"
    ttl = settings.users.reset_ttl if purpose is Purpose.RESET else settings.users.verify_ttl
    values = {"link": link, "valid_for": _duration(ttl)}
    await _send(context, email, SUBJECTS[purpose], f"mailed_{purpose}", key, **values)


async def _send(
    context: JobContext, email: str, subject: str, template: str, key: str, **values: str
) -> None:
    reset = settings_of(context.resources).link(PAGES[Purpose.RESET])
    shown: Mapping[str, Any] = {"title": TITLE, "subject": subject, "reset": reset, **values}
    key = f"{key}-{secrets.token_hex(4)}"
    await context.mailer.send(email, f"{TITLE}: {subject}", template, shown, key)


def _duration(seconds: int) -> str:
    for unit, size in (("hour", 3600), ("minute", 60)):
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'s' if count != 1 else ''}"
    return "a minute"


HANDLERS: dict[type[Job], Handler] = {
    Register: register,
    SendVerification: send_verification,
    SendReset: send_reset,
    SendNewAddress: send_new_address,
    SendAddressChanged: send_address_changed,
    SendTotpChanged: send_totp_changed,
}
