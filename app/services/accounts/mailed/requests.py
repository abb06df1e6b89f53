import secrets
from functools import partial

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.logins.password_throttle import PasswordThrottle
from app.schemas.accounts.mailed import EmailChange, MailAccepted
from app.schemas.job import Register, SendNewAddress, SendReset, SendVerification
from app.schemas.user import Account, UserCreate
from app.services.accounts.mailed.tokens import USERS, state_of
from app.services.accounts.users import UserService
from app.settings import settings_of
from chassis.database.transactions import retry_on_deadlock
from chassis.errors import Conflict, Invalid, TooManyRequests
from chassis.idempotency.requests import NO_KEY, IdempotentRequest
from chassis.jobs.job import Job
from chassis.resources import Resources


class MailRequestService:
    """Requests that are answered by mail.

    A request writes one job whether or not there is such an account, and the job finds out: status,
    body and time of the response are alike. What anybody may have sent to one address is limited
    (LIMITS_MAILS_*); above that the response is the same, and nothing is sent.
    """

    def __init__(self, resources: Resources) -> None:
        self.users = UserService(resources)
        self.sessions = resources["sessions"]
        self.passwords = resources["passwords"]
        self.limiter = resources["limiter"]
        self.outbox = resources["outbox"]
        self.verify = settings_of(resources).users.verify

    async def register(
        self, body: UserCreate, idempotent: IdempotentRequest = NO_KEY
    ) -> MailAccepted:
        self.passwords.refuse_weak(body.password, body.email)
        hash = await self.passwords.hash(body.password)
        job = Register(email=body.email, user_name=body.name, password_hash=hash)
        return await self._request(body.email, job, idempotent)

    async def verification(
        self, email: str, idempotent: IdempotentRequest = NO_KEY
    ) -> MailAccepted:
        return await self._request(email, SendVerification(email=email), idempotent)

    async def reset(self, email: str, idempotent: IdempotentRequest = NO_KEY) -> MailAccepted:
        return await self._request(email, SendReset(email=email), idempotent)

    async def new_address(
        self,
        account: Account,
        body: EmailChange,
        throttle: PasswordThrottle,
        idempotent: IdempotentRequest = NO_KEY,
    ) -> MailAccepted:
        """Raises Invalid where the password is wrong."""
        hash = await self.users.require_password(account, body.current_password, throttle)
        if body.email == account.user.email:
            raise Invalid("Is the address of this account already", ("body", "email"))
        async with self.sessions.current() as session:
            found = select(USERS).where(USERS.c.id == account.user.id)
            user = (await session.execute(found)).mappings().first()
        if user is None or user["password_hash"] != hash:
            raise Conflict("The account was changed by another request; try again")
        job = SendNewAddress(user_id=user["id"], email=body.email, state=state_of(user))
        return await self._request(body.email, job, idempotent)

    @retry_on_deadlock
    async def _request(
        self, email: str, job: Job, idempotent: IdempotentRequest = NO_KEY
    ) -> MailAccepted:
        try:
            await self.limiter.consume("mails", email)
        except TooManyRequests:
            return MailAccepted()
        async with self.sessions.write() as session:
            work = partial(self._write, session, job)
            accepted, is_new = await idempotent.owned_by(email).run(session, MailAccepted, work)
            if is_new:
                await session.commit()
        return accepted

    async def _write(self, session: AsyncSession, job: Job) -> MailAccepted:
        await self.outbox.write(session, job, key=f"{job.name}-{secrets.token_hex(16)}")
        return MailAccepted()
