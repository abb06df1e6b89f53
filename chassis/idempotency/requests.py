"""POST requests with an `Idempotency-Key` have an effect once, however often they are sent.

https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
"""

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from functools import cache, cached_property
from hashlib import sha256
from typing import Any, TypeVar

from cryptography.fernet import Fernet, MultiFernet
from pydantic import BaseModel
from sqlalchemy import TextClause, bindparam, select, text, update
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.clock import now
from chassis.database.columns import UTCDateTime
from chassis.errors import RETRY_AFTER, Conflict, Invalid
from chassis.idempotency.model import IdempotencyRecord
from chassis.request_context import current_request

HEADER = "Idempotency-Key"
BUSY = {(1205,), (1213,)}  # MariaDB: another transaction has locked the row, or waits for it
RECORDS: Any = IdempotencyRecord.__table__

T = TypeVar("T", bound=BaseModel)

TIMES = [bindparam(name, type_=UTCDateTime()) for name in ("expires_at", "now")]
INSERT = (
    "INSERT INTO idempotency_records (digest, fingerprint, response, expires_at)"
    " VALUES (:digest, :fingerprint, '', :expires_at)"
)
RENEW = (
    "UPDATE idempotency_records"
    " SET fingerprint = :fingerprint, response = '', expires_at = :expires_at"
    " WHERE digest = :digest AND expires_at < :now"
)
# A duplicate is refused at once: waiting, it would hold a connection.
NO_WAIT = {"sqlite": "", "mariadb": "SET STATEMENT innodb_lock_wait_timeout=0 FOR "}


@cache
def _statement(dialect: str, statement: str) -> TextClause:
    times = [time for time in TIMES if f":{time.key}" in statement]
    return text(NO_WAIT[dialect] + statement).bindparams(*times)


class IdempotencyStore:
    """Encrypts recorded responses, which may hold tokens, and digests requests, which may hold
    passwords. Its keys derive from TOKENS_KEY and TOKENS_OLD_KEYS.
    """

    def __init__(self, ttl: float, secrets: Iterable[str]) -> None:
        """`ttl`: how long a response is kept, s; `secrets`: the newest first, which is used."""
        self.ttl = timedelta(seconds=ttl)
        keys = [sha256(b"idempotency records" + secret.encode()).digest() for secret in secrets]
        self._keys = {sha256(key).hexdigest()[:8]: key for key in keys}

    def fingerprint(self, request: bytes, key_id: str | None = None) -> str | None:
        """A keyed digest, after the id of its key, by default the newest. None: no such key."""
        key_id = key_id or next(iter(self._keys))
        if key_id not in self._keys:
            return None
        return f"{key_id}:{hmac.digest(self._keys[key_id], request, 'sha256').hex()[:48]}"

    @cached_property
    def cipher(self) -> MultiFernet:
        return MultiFernet([Fernet(urlsafe_b64encode(key)) for key in self._keys.values()])


class IdempotentRequest:
    """A request with an `Idempotency-Key`: it has one effect, however often it is sent.

    Its response is recorded in the transaction of its effect: both are there or neither. An error
    is not recorded, as it has changed nothing. See docs/idempotency.md.
    """

    def __init__(self, store: IdempotencyStore, owner: str, key: str, request: bytes) -> None:
        """`request`: all that distinguishes it; each owner has a namespace of keys."""
        self.store = store
        self.key = key
        self.request = request
        self.digest = sha256(f"{owner}\n{key}".encode()).hexdigest()

    def owned_by(self, owner: str) -> "IdempotentRequest":
        """The same in the namespace of `owner`, as clients without a token change addresses."""
        return IdempotentRequest(self.store, owner, self.key, self.request)

    async def run(
        self, session: AsyncSession, type: type[T], work: Callable[[], Awaitable[T]]
    ) -> tuple[T, bool]:
        """Returns `(response, is_new)`. If it is new, commit; else nothing was done.

        Call it first of all in the transaction: it locks the key until that ends. Raises Invalid
        where the key was used for another request, Conflict while the first one is in progress.
        """
        if (record := await self._claim(session)) is not None:
            return type.model_validate_json(self._decrypt(record)), False
        response = await work()
        encrypted = self.store.cipher.encrypt(response.model_dump_json().encode()).decode()
        this = update(RECORDS).where(RECORDS.c.digest == self.digest)
        await session.execute(this.values(response=encrypted))
        return response, True

    async def _claim(self, session: AsyncSession) -> Any:
        """The record of the key; None if there was none, and the key is locked now."""
        record = await self._find(session)
        if record is None or record.expires_at < now():
            if await self._write(session, INSERT if record is None else RENEW):
                return None
            record = await self._find(session)
        if record is None or not record.response:  # renewed or deleted by another transaction
            raise InProgress
        return record

    def _decrypt(self, record: Any) -> bytes:
        mine = self.store.fingerprint(self.request, record.fingerprint.partition(":")[0])
        if mine is None:
            raise Conflict(f"The response to this {HEADER} can no longer be read; use another")
        if mine != record.fingerprint:
            raise Invalid("Was used for another request", ("header", HEADER))
        if (context := current_request.get()) is not None:
            context.response_headers.append((b"idempotency-replayed", b"true"))
        return self.store.cipher.decrypt(record.response)

    async def _find(self, session: AsyncSession) -> Any:
        found = select(RECORDS).where(RECORDS.c.digest == self.digest)
        return (await session.execute(found)).one_or_none()

    async def _write(self, session: AsyncSession, statement: str) -> bool:
        dialect = session.get_bind().dialect.name
        values = {
            "digest": self.digest,
            "fingerprint": self.store.fingerprint(self.request),
            "expires_at": now() + self.store.ttl,
            "now": now(),
        }
        try:
            done: Any = await session.execute(_statement(dialect, statement), values)
        except IntegrityError:
            return False
        except OperationalError as error:
            if error.orig is not None and error.orig.args[:1] in BUSY:
                raise InProgress from None
            raise
        return bool(done.rowcount)


class WithoutKey(IdempotentRequest):
    def __init__(self) -> None:
        pass

    def owned_by(self, owner: str) -> "IdempotentRequest":
        return self

    async def run(
        self, session: AsyncSession, type: type[T], work: Callable[[], Awaitable[T]]
    ) -> tuple[T, bool]:
        return await work(), True


NO_KEY = WithoutKey()


class InProgress(Conflict):
    headers = RETRY_AFTER

    def __init__(self) -> None:
        super().__init__(f"A request with this {HEADER} is in progress; try again")
