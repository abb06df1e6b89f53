import logging
from datetime import timedelta
from functools import partial
from hmac import compare_digest
from typing import Any

from sqlalchemy import delete, func, insert, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import ApiKey, User, UserSession
from app.models.user import new_session_id
from app.schemas.accounts.key import KeyAccount, KeyCreate, KeyCreated, KeyQuery, KeyRead
from app.schemas.user import Account, UserRead
from chassis.auth.api_keys import ParsedKey, digest_of
from chassis.clock import now
from chassis.database.keyset import Sort
from chassis.database.transactions import retry_on_deadlock
from chassis.errors import AppError, Conflict, Invalid, NotFound, Unauthorized
from chassis.idempotency.requests import NO_KEY, IdempotentRequest
from chassis.resources import Resources
from chassis.schemas.page import Page

TTL = 60  # s; of a cached account
USE_EXACT_TO = timedelta(minutes=5)  # a use that follows sooner is not written
UNKNOWN = "The API key is unknown or was revoked"  # alike, so that neither can be told
EXPIRED = "The API key has expired; make a new one"

KEYS: Any = ApiKey.__table__
SHOWN = [KEYS.c[name] for name in KeyRead.model_fields if name != "start"]
HELD = [KEYS.c[name] for name in ("digest", "scopes", "expires_at", "used_at")]
USER: list[Any] = [User.__table__.c[name] for name in UserRead.model_fields]
SORT = Sort("-created_at", KEYS.c.created_at, KEYS.c.id, descending=True)

log = logging.getLogger("app.keys")


class KeyService:
    """API keys of accounts: see docs/api-keys.md."""

    def __init__(self, resources: Resources) -> None:
        self.sessions = resources["sessions"]
        self.cache = resources["cache"]
        self.limiter = resources["limiter"]
        self.events = resources["security"]
        self.keys = resources["api_keys"]
        self.per_account = resources["settings"].keys.per_account

    async def find(self, key: ParsedKey, network: str) -> KeyAccount:
        """The account of a key, which a client of this network has sent.

        Raises Unauthorized where the key is not valid, or no longer; TooManyRequests.
        """
        loaded: KeyAccount | None = None

        async def load() -> KeyAccount:
            nonlocal loaded
            loaded = await self._load(key, network)
            return loaded

        account = await self.cache.get_or_load(
            f"key:{key.key_id}:{key.user_id}",
            KeyAccount,
            load,
            ttl=TTL,
            tags=[f"user:{key.user_id}", f"key:{key.key_id}"],
        )
        if not compare_digest(account.digest, key.digest):
            raise Unauthorized(UNKNOWN, invalid=True)
        if account.expires_at is not None and account.expires_at <= now():
            raise Unauthorized(EXPIRED, invalid=True)
        # Of all requests that have this value, the one that has loaded it writes the use.
        if loaded is not None:
            used_at = account.used_at
            account.is_use_due = used_at is None or used_at < now() - USE_EXACT_TO
        return account

    async def page(self, account: Account, query: KeyQuery) -> Page[KeyRead]:
        wanted = select(*SHOWN).where(KEYS.c.user_id == account.user.id).order_by(*SORT.by(KEYS))
        if query.after is not None:
            wanted = wanted.where(SORT.after()).params(SORT.cursor_params(query.after))
        async with self.sessions.current() as session:
            rows = (await session.execute(wanted.limit(query.limit + 1))).all()
        page = SORT.page([*rows], query.limit)
        return Page(items=[self._read(row) for row in page.items], next=page.next)

    @retry_on_deadlock
    async def create(
        self, account: Account, body: KeyCreate, idempotent: IdempotentRequest = NO_KEY
    ) -> KeyCreated:
        async with self.sessions.write() as session:
            work = partial(self._create, session, account, body)
            made, is_new = await idempotent.run(session, KeyCreated, work)
            if not is_new:
                return made
            owner = (account.user.id, account.session_id)
            await self.events.audit(session, "key_created", *owner, key=made.id)
            await session.commit()  # it was in no cache: what is unknown is not stored
        return made

    @retry_on_deadlock
    async def revoke(self, account: Account, key_id: int) -> None:
        own = (KEYS.c.id == key_id) & (KEYS.c.user_id == account.user.id)
        async with self.sessions.write() as session:
            done: Any = await session.execute(delete(KEYS).where(own))
            if not done.rowcount:
                raise NotFound(f"API key {key_id} does not exist")
            owner = (account.user.id, account.session_id)
            await self.events.audit(session, "key_revoked", *owner, key=str(key_id))
            async with self.cache.invalidating(f"key:{key_id}"):
                await session.commit()

    async def record_use(self, key_id: int) -> None:
        """After the response, which an error must not change: a later request writes it, too."""
        try:
            await self._record_use(key_id)
        except (AppError, SQLAlchemyError) as error:
            log.warning("The use of API key %d was not recorded: %r", key_id, error)

    @retry_on_deadlock
    async def _record_use(self, key_id: int) -> None:
        old = or_(KEYS.c.used_at.is_(None), KEYS.c.used_at < now() - USE_EXACT_TO)
        async with self.sessions.write() as session:
            this = update(KEYS).where(KEYS.c.id == key_id, old)
            await session.execute(this.values(used_at=now()))
            await session.commit()

    async def _load(self, key: ParsedKey, network: str) -> KeyAccount:
        """Raises Unauthorized, not NotFound, which would be cached for any key made up."""
        # What is unknown costs a query, so each network has so many of these as of reads.
        caller = f"keys {network}"
        await self.limiter.consume("reads", caller)
        wanted = (
            select(*HELD, *USER)
            .join(User, User.id == KEYS.c.user_id)
            .where(KEYS.c.id == key.key_id, User.id == key.user_id)
            .where(User.disabled_at.is_(None), User.deleted_at.is_(None))
        )
        async with self.sessions.current() as session:
            row = (await session.execute(wanted)).mappings().first()
        if row is None:
            raise Unauthorized(UNKNOWN, invalid=True)
        await self.limiter.refund("reads", caller)
        return KeyAccount(
            key_id=key.key_id,
            digest=row["digest"],
            scopes=row["scopes"].split(),
            expires_at=row["expires_at"],
            used_at=row["used_at"],
            user=UserRead(**row),
        )

    async def _create(self, session: AsyncSession, account: Account, body: KeyCreate) -> KeyCreated:
        if body.expires_at is not None and body.expires_at <= now():
            raise Invalid("Is not in the future", ("body", "expires_at"))
        user_id = account.user.id
        # One at a time; and a change of the password, which ends sessions, is before or after.
        await session.execute(select(User.id).where(User.id == user_id).with_for_update())
        login = select(UserSession.id).where(UserSession.id == account.session_id)
        if await session.scalar(login) is None:
            raise Unauthorized("The session has ended; log in", invalid=True)
        own = KEYS.c.user_id == user_id
        count = select(func.count()).select_from(KEYS).where(own)
        if (await session.scalar(count) or 0) >= self.per_account:
            await session.execute(delete(KEYS).where(own, KEYS.c.expires_at <= now()))
            if (number := await session.scalar(count) or 0) >= self.per_account:
                raise Conflict(f"This account has {number} API keys already; revoke one first")
        key_id = new_session_id()
        key = self.keys.make(user_id, key_id)
        values = {
            "id": key_id,
            "user_id": user_id,
            "name": body.name,
            "digest": digest_of(key),
            "scopes": " ".join(body.scopes),
            "created_at": now(),
            "expires_at": body.expires_at,
        }
        await session.execute(insert(KEYS).values(values))
        stored = (await session.execute(select(*SHOWN).where(KEYS.c.id == key_id))).one()
        return KeyCreated(**self._read(stored).model_dump(), key=key)

    def _read(self, row: Any) -> KeyRead:
        values = dict(row._mapping)
        key_id, scopes = values.pop("id"), values.pop("scopes")
        start = self.keys.start(key_id)
        return KeyRead(id=str(key_id), start=start, scopes=scopes.split(), **values)
