from functools import partial

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.logins.networks import has_logged_in
from app.logins.password_throttle import PasswordThrottle
from app.models import RefreshToken, User, UserSession
from app.sample.reviewers import tags_of_reviewer  # sample
from app.schemas.job import SendWelcome
from app.schemas.user import Account, Role, UserCreate, UserRead, UserUpdate
from chassis.clock import now
from chassis.database.transactions import retry_on_deadlock
from chassis.errors import Conflict, Invalid, NotFound
from chassis.http.etag import etag_of
from chassis.http.preconditions import UNCONDITIONAL, Preconditions
from chassis.idempotency.requests import NO_KEY, IdempotentRequest
from chassis.resources import Resources
from chassis.schemas.fields import differing

TABLE = User.__table__
COLUMNS = [TABLE.c[name] for name in UserRead.model_fields]


class UserService:
    """Accounts. Passwords are hashed before a session is opened: no connection waits for that."""

    def __init__(self, resources: Resources) -> None:
        self.sessions = resources["sessions"]
        self.cache = resources["cache"]
        self.passwords = resources["passwords"]
        self.outbox = resources["outbox"]
        self.events = resources["security"]

    async def get(self, user_id: int) -> UserRead:
        async with self.sessions.current() as session:
            this = (User.id == user_id) & User.deleted_at.is_(None)
            user = (await session.execute(select(*COLUMNS).where(this))).mappings().first()
        if user is None:
            raise NotFound(f"Account {user_id} does not exist")
        return UserRead(**user)

    async def of_session(self, user_id: int, session_id: int) -> Account:
        """Raises NotFound once the session has ended, or where it belongs to another account."""
        return await self.cache.get_or_load(
            f"session:{session_id}:{user_id}",
            Account,
            lambda: self._load(user_id, session_id),
            ttl=60,
            tags=[f"user:{user_id}", f"session:{session_id}"],
        )

    @retry_on_deadlock
    async def create(
        self,
        body: UserCreate,
        role: Role = Role.READER,
        idempotent: IdempotentRequest = NO_KEY,
        *,
        any_password: bool = False,
        verified: bool = False,
    ) -> UserRead:
        """`verified`: an operator vouches for the address."""
        if not any_password:
            self.passwords.refuse_weak(body.password, body.email)
        password_hash = await self.passwords.hash(body.password)
        row = User(email=body.email, name=body.name, password_hash=password_hash, role=role)
        row.verified_at = now() if verified else None
        async with self.sessions.write() as session:
            work = partial(self._insert, session, row)
            user, is_new = await idempotent.owned_by(body.email).run(session, UserRead, work)
            if not is_new:
                return user
            job = SendWelcome(user_id=user.id)
            await self.outbox.write(session, job, key=f"welcome-{user.id}")
            await self.events.audit(session, "registered", user.id)
            await session.commit()
        return user

    @retry_on_deadlock
    async def update(
        self,
        account: Account,
        body: UserUpdate,
        throttle: PasswordThrottle,
        preconditions: Preconditions = UNCONDITIONAL,
    ) -> UserRead:
        changes = body.model_dump(exclude_unset=True, exclude={"password", "current_password"})
        old_hash = None
        if "password" in body.model_fields_set:
            self.passwords.refuse_weak(body.password, account.user.email)
            old_hash = await self.require_password(account, body.current_password, throttle)
            changes["password_hash"] = await self.passwords.hash(body.password)
        async with self.sessions.write() as session:
            this = (User.id == account.user.id) & User.deleted_at.is_(None)
            me = select(*COLUMNS, User.password_hash).where(this)
            locked = (await session.execute(me.with_for_update())).first()
            if locked is None or old_hash not in (None, locked.password_hash):
                raise Conflict("The account was changed by another request; try again")
            user = UserRead(**locked._mapping)
            preconditions.check(etag_of(user))
            if not (changes := differing(locked, changes)):
                return user
            if old_hash is not None:
                own = account.session_id
                await self.events.audit(session, "password_changed", user.id, own)
                await self._end_logins(session, account)
            await session.execute(update(User).where(User.id == user.id).values(changes))
            user = await self._read(session, user.id)
            tags = {f"user:{user.id}"}
            if "name" in changes:  # sample
                tags |= await tags_of_reviewer(session, user.id)  # sample
            async with self.cache.invalidating(*tags):
                await session.commit()
        return user

    @retry_on_deadlock
    async def rehash(self, email: str, password: str) -> None:
        """Hash it at the current cost; where this fails, the next login does it."""
        this = User.email == email
        async with self.sessions.current() as reading:
            old = await reading.scalar(select(User.password_hash).where(this))
        verified = await self.passwords.verify(password, old)
        if not verified.matches or not verified.outdated:
            return  # changed or rehashed by another request
        values = {"password_hash": await self.passwords.hash(password)}
        async with self.sessions.write() as session:
            same = this & (User.password_hash == old)
            await session.execute(update(User).where(same).values(values))
            await session.commit()

    @retry_on_deadlock
    async def set_role(self, email: str, role: Role) -> None:
        async with self.sessions.write() as session:
            user_id = await session.scalar(select(User.id).where(User.email == email))
            if user_id is None:
                raise NotFound(f"There is no account for {email}")
            await session.execute(update(User).where(User.id == user_id).values(role=role))
            await self.events.audit(session, "role_changed", user_id, role=role)
            async with self.cache.invalidating(f"user:{user_id}"):
                await session.commit()

    async def _insert(self, session: AsyncSession, user: User) -> UserRead:
        session.add(user)
        try:
            await session.flush()
        except IntegrityError as error:
            raise Conflict(f"There is an account for {user.email} already") from error
        return await self._read(session, user.id)

    async def _read(self, session: AsyncSession, user_id: int) -> UserRead:
        rows = await session.execute(select(*COLUMNS).where(User.id == user_id))
        return UserRead(**rows.mappings().one())

    async def require_password(
        self, account: Account, password: str, throttle: PasswordThrottle
    ) -> str:
        """Its hash, for a comparison once the account is locked. Raises Invalid."""
        user = account.user
        columns = (User.password_hash, has_logged_in(throttle.network))
        async with self.sessions.current() as session:
            this = (User.id == user.id) & User.deleted_at.is_(None)
            found = (await session.execute(select(*columns).where(this))).first()
        if found is None:
            raise NotFound("The account has been deleted")
        hash: str = found.password_hash
        verified = await throttle.verify(
            user.email, password, hash, account=user.id, is_known_network=found.has_logged_in
        )
        if not verified.matches:
            self.events.record("password_refused", user.id, account.session_id)
            raise Invalid("Is not the current password", ("body", "current_password"))
        return hash

    async def _end_logins(self, session: AsyncSession, account: Account) -> None:
        """All but the access tokens of this session: a refresh token may have been stolen.

        The account is locked, which excludes logins; locking its session excludes refreshes.
        """
        own = UserSession.id == account.session_id
        await session.execute(select(UserSession.id).where(own).with_for_update())
        theirs = RefreshToken.session_id == account.session_id
        await session.execute(delete(RefreshToken).where(theirs))
        others = (UserSession.user_id == account.user.id) & ~own
        for ended in await session.scalars(select(UserSession.id).where(others)):
            await self.events.audit(
                session, "session_ended", account.user.id, ended, reason="password change"
            )
        await session.execute(delete(UserSession).where(others))

    async def _load(self, user_id: int, session_id: int) -> Account:
        wanted = (
            select(*COLUMNS)
            .join(UserSession, UserSession.user_id == User.id)
            .where(UserSession.id == session_id, User.id == user_id)
        )
        async with self.sessions.current() as session:
            row = (await session.execute(wanted)).mappings().first()
        if row is None:
            raise NotFound("The session has ended")
        return Account(session_id=session_id, user=UserRead(**row))
