from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.cache import Cache
from app.database import Sessions
from app.errors import Conflict, Invalid, NotFound
from app.etag import etag_of
from app.idempotency import ALWAYS, Once
from app.models import RefreshToken, User, UserSession
from app.outbox import Outbox
from app.passwords import Passwords
from app.schemas.job import SendWelcome
from app.schemas.user import Account, Role, UserCreate, UserRead, UserUpdate
from app.services.preconditions import UNCONDITIONAL, Preconditions
from app.services.transactions import transaction

TABLE = User.__table__
COLUMNS = [TABLE.c[name] for name in UserRead.model_fields]


class UserService:
    """Passwords are hashed before a session is opened: nobody waits with a connection in hand."""

    def __init__(
        self, sessions: Sessions, cache: Cache, passwords: Passwords, outbox: Outbox
    ) -> None:
        self.sessions = sessions
        self.cache = cache
        self.passwords = passwords
        self.outbox = outbox

    async def get(self, user_id: int) -> UserRead:
        async with self.sessions.current() as session:
            rows = await session.execute(select(*COLUMNS).where(User.id == user_id))
            user = rows.mappings().first()
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

    @transaction
    async def create(
        self,
        body: UserCreate,
        role: Role = Role.READER,
        once: Once = ALWAYS,
        *,
        any_password: bool = False,
    ) -> UserRead:
        if not any_password:
            self.passwords.refuse_weak(body.password, body.email)
        once = once.owned_by(body.email)
        password_hash = await self.passwords.hash(body.password)
        user = User(email=body.email, name=body.name, password_hash=password_hash, role=role)
        async with self.sessions.write() as session:
            if (known := await once.known(session, UserRead)) is not None:
                return known
            session.add(user)
            try:
                await session.flush()
            except IntegrityError as error:
                raise Conflict(f"There is an account for {body.email} already") from error
            made = await self._read(session, user.id)
            await once.keep(session, made)
            welcome = await self.outbox.write(
                session, SendWelcome(user_id=user.id), key=f"welcome-{user.id}"
            )
            await session.commit()
        self.outbox.relay(welcome)
        return made

    @transaction
    async def update(
        self, account: Account, body: UserUpdate, preconditions: Preconditions = UNCONDITIONAL
    ) -> UserRead:
        changes = body.model_dump(exclude_unset=True, exclude={"password", "current_password"})
        old_hash = None
        if "password" in body.model_fields_set:
            self.passwords.refuse_weak(body.password, account.user.email)
            old_hash = await self._require_password(account.user.id, body.current_password)
            changes["password_hash"] = await self.passwords.hash(body.password)
        mine = User.id == account.user.id
        me = select(*COLUMNS).where(User.id == account.user.id)
        async with self.sessions.write() as session:
            if preconditions:
                locked = await session.execute(me.with_for_update())
                preconditions.check(etag_of(UserRead(**locked.mappings().one())))
            if old_hash is not None:
                mine &= User.password_hash == old_hash  # nobody has changed it meanwhile
                await self._end_logins(session, account)
            if changes:
                changed = await session.execute(update(User).where(mine).values(changes))
                if not changed.rowcount:  # type: ignore[attr-defined]
                    raise Conflict("The account has changed meanwhile; try again")
            user = await self._read(session, account.user.id)
            shown = ["reviewers"] if "name" in changes else []
            async with self.cache.invalidating(f"user:{user.id}", *shown):
                await session.commit()
        return user

    @transaction
    async def set_role(self, email: str, role: Role) -> None:
        async with self.sessions.write() as session:
            user_id = await session.scalar(select(User.id).where(User.email == email))
            if user_id is None:
                raise NotFound(f"There is no account for {email}")
            await session.execute(update(User).where(User.id == user_id).values(role=role))
            async with self.cache.invalidating(f"user:{user_id}"):
                await session.commit()

    async def _read(self, session: AsyncSession, user_id: int) -> UserRead:
        rows = await session.execute(select(*COLUMNS).where(User.id == user_id))
        return UserRead(**rows.mappings().one())

    async def _require_password(self, user_id: int, password: str) -> str:
        async with self.sessions.current() as session:
            wanted = select(User.password_hash).where(User.id == user_id)
            hash: str | None = await session.scalar(wanted)
        if hash is None or not (await self.passwords.verify(password, hash)).matches:
            raise Invalid("Is not the present password", ("body", "current_password"))
        return hash

    async def _end_logins(self, session: AsyncSession, account: Account) -> None:
        """All but the access tokens of this session: a refresh token may have been stolen."""
        own = UserSession.id == account.session_id
        # Locked before its tokens, as logins do: no refresh goes on with one of them meanwhile.
        await session.execute(select(UserSession.id).where(own).with_for_update())
        theirs = RefreshToken.session_id == account.session_id
        await session.execute(delete(RefreshToken).where(theirs))
        others = (UserSession.user_id == account.user.id) & ~own
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
