"""POST requests with an `Idempotency-Key` have an effect once, however often they are sent.

https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
"""

import hmac
from base64 import urlsafe_b64encode
from datetime import timedelta
from functools import cache, cached_property
from hashlib import sha256
from typing import Any, TypeVar

from cryptography.fernet import Fernet, MultiFernet
from pydantic import BaseModel
from sqlalchemy import TextClause, bindparam, select, text, update
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import RETRY_AFTER, Conflict, Invalid
from app.models import KeptAnswer
from app.models.base import UTCDateTime, now
from app.request_context import current_request
from app.settings import Settings

HEADER = "Idempotency-Key"
BUSY = {(1205,), (1213,)}  # MariaDB: another transaction holds the row, or wants it as well
TABLE: Any = KeptAnswer.__table__

T = TypeVar("T", bound=BaseModel)

TIMES = [bindparam(name, type_=UTCDateTime()) for name in ("expires_at", "now")]
INSERT = (
    "INSERT INTO kept_answers (digest, fingerprint, answer, expires_at)"
    " VALUES (:digest, :fingerprint, '', :expires_at)"
)
RENEW = (
    "UPDATE kept_answers SET fingerprint = :fingerprint, answer = '', expires_at = :expires_at"
    " WHERE digest = :digest AND expires_at < :now"
)
# A twin that waited would do so with a connection in hand.
NO_WAIT = {"sqlite": "", "mariadb": "SET STATEMENT innodb_lock_wait_timeout=0 FOR "}


@cache
def _statement(dialect: str, statement: str) -> TextClause:
    times = [time for time in TIMES if f":{time.key}" in statement]
    return text(NO_WAIT[dialect] + statement).bindparams(*times)


class Safe:
    """Keeps answers so that nobody learns tokens or passwords from the database."""

    def __init__(self, settings: Settings) -> None:
        self.ttl = timedelta(seconds=settings.request.replay_ttl)
        keys = [sha256(b"kept answers" + key.encode()).digest() for key in settings.tokens.keys]
        self._keys = {sha256(key).hexdigest()[:8]: key for key in keys}  # the newest first

    def fingerprint(self, request: bytes, key_id: str | None = None) -> str | None:
        """By that key, else by the newest; it begins with the key's id. None: there is no such."""
        key_id = key_id or next(iter(self._keys))
        if key_id not in self._keys:
            return None
        return f"{key_id}:{hmac.digest(self._keys[key_id], request, 'sha256').hex()[:48]}"

    @cached_property
    def cipher(self) -> MultiFernet:
        return MultiFernet([Fernet(urlsafe_b64encode(key)) for key in self._keys.values()])


class Once:
    """One request: its answer is kept in the transaction that it is about.

    Only of what succeeded: an error has changed nothing, and the key may be used again.
    """

    def __init__(self, safe: Safe, owner: str, key: str, request: bytes) -> None:
        """`request`: all that makes it another one; each owner has keys of its own."""
        self.safe = safe
        self.key = key
        self.request = request
        self.digest = sha256(f"{owner}\n{key}".encode()).hexdigest()

    def owned_by(self, owner: str) -> "Once":
        """For requests without an account, whose address may be another when they come again."""
        return Once(self.safe, owner, self.key, self.request)

    async def known(self, session: AsyncSession, type: type[T]) -> T | None:
        """The answer of before. If there is none, the key is taken until the transaction ends.

        Call it first of all in the transaction. Raises Invalid where the key was used for another
        request, and Conflict where that request is still being answered.
        """
        row = await self._find(session)
        if row is None or row.expires_at < now():
            if await self._run(session, INSERT if row is None else RENEW):
                return None
            row = await self._find(session)
        if row is None or not row.answer:  # what was there a moment ago was renewed or deleted
            raise _busy()
        mine = self.safe.fingerprint(self.request, row.fingerprint.partition(":")[0])
        if mine is None:
            raise Conflict(f"The key of what is kept under this {HEADER} has changed; use another")
        if mine != row.fingerprint:
            raise Invalid("Was used for another request", ("header", HEADER))
        answer = self.safe.cipher.decrypt(row.answer)
        if (context := current_request.get()) is not None:
            context.answer_headers.append((b"idempotency-replayed", b"true"))
        return type.model_validate_json(answer)

    async def keep(self, session: AsyncSession, answer: BaseModel) -> None:
        """Call it before the commit."""
        hidden = self.safe.cipher.encrypt(answer.model_dump_json().encode()).decode()
        this = update(TABLE).where(TABLE.c.digest == self.digest)
        await session.execute(this.values(answer=hidden))

    async def _find(self, session: AsyncSession) -> Any:
        found = select(TABLE).where(TABLE.c.digest == self.digest)
        return (await session.execute(found)).one_or_none()

    async def _run(self, session: AsyncSession, statement: str) -> bool:
        """Whether it has taken the key."""
        dialect = session.get_bind().dialect.name
        values = {
            "digest": self.digest,
            "fingerprint": self.safe.fingerprint(self.request),
            "expires_at": now() + self.safe.ttl,
            "now": now(),
        }
        try:
            done: Any = await session.execute(_statement(dialect, statement), values)
        except IntegrityError:
            return False
        except OperationalError as error:
            if error.orig is not None and error.orig.args[:1] in BUSY:
                raise _busy() from None
            raise
        return bool(done.rowcount)


class Always(Once):
    """A request without a key, which has its effect each time."""

    def __init__(self) -> None:
        pass

    def owned_by(self, owner: str) -> "Once":
        return self

    async def known(self, session: AsyncSession, type: type[T]) -> T | None:
        return None

    async def keep(self, session: AsyncSession, answer: BaseModel) -> None:
        pass


ALWAYS = Always()


class InProgress(Conflict):
    headers = RETRY_AFTER


def _busy() -> InProgress:
    return InProgress(f"A request with this {HEADER} is being answered; try again")
