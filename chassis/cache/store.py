import logging
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as Unreachable
from redis.exceptions import RedisError

from chassis.cache.entry import Entry, created_at, digest, new_token, shorten, tokens_of, unpack
from chassis.cache.epoch import Epoch, EpochUnknown
from chassis.cache.load_spec import LoadSpec
from chassis.cache.metrics import CacheMetrics
from chassis.cache.scripts import GET_OR_CREATE_TOKENS, RENEW_TOKENS
from chassis.cache.settings import CacheSettings
from chassis.redis.shared_connection import ServerConnection, SharedConnection
from chassis.request_context import READ_ANY
from chassis.tasks.single_flight import SingleFlight
from chassis.tasks.timeout import Timeout
from chassis.telemetry.metrics import Metrics

TOKEN_TTL = 3600  # s after the last store with this tag; then its entries are invalid
NEW_TOKEN_TTL = 20  # s; short, as lookups of missing ids create tokens too; most loads are shorter
LOCK_TTL = 5  # s
CLOCK_SKEW = 0.5  # s; between two machines, and until a new token has reached Redis
RENEWED_AT_ONCE = 1000  # tags of a command: Redis runs no other meanwhile, and REDIS_TIMEOUT counts

log = logging.getLogger("app.cache")


class Lookup(NamedTuple):
    """The valid entry, if any, and the validator of a new one; without it nothing is stored."""

    entry: Entry | None
    validator: bytes | None


NO_LOOKUP = Lookup(None, None)


class CacheStore:
    """Reads and writes entries in Redis, and decides whether an entry is still valid.

    An entry has *tags*. Each tag has a *token* in Redis, which a write replaces after its commit.
    An entry is stored with a *validator*: the epoch and the tokens of its tags as they were before
    its data was read. A lookup reads the entry and the current tokens with one MGET, and the entry
    is valid if they match. So a slow reader cannot store old data as current.
    docs/caching.md has the whole argument, chassis/cache/epoch.py says what the epoch is.
    """

    def __init__(
        self,
        shared: SharedConnection,
        redis: Redis,
        epoch: Epoch,
        settings: CacheSettings,
        metrics: Metrics,
        has_replica: bool,
    ) -> None:
        self.shared = shared
        self.redis = redis
        self.epoch = epoch
        self.settings = settings
        self.metrics = metrics.of(CacheMetrics)
        self.has_replica = has_replica
        self._flights = SingleFlight()
        self._epoch_digest = b""  # of the epoch and the server's run id
        self._digest_connection: ServerConnection | None = None  # for which it is valid
        self._epoch = 0
        self._epoch_changed_at = 0.0
        self._epoch_changes = 0  # before and after each advance: a sync that spans one is repeated
        self._is_epoch_known = True

    async def lookup(self, key: str, tags: Sequence[str]) -> Lookup:
        """One round trip if all tags have tokens. Returns NO_LOOKUP if Redis fails or is late."""
        if not self.settings.enabled:
            return NO_LOOKUP
        names = self._tag_names(tags)
        try:
            connection = self.shared.connection
            if connection is None or connection is not self._digest_connection:
                with Timeout(self.shared.timeout):
                    connection = await self._flights.run(self._epoch_changes, self.sync_epoch)
            epoch_digest = self._epoch_digest
            stored, *tokens = await self.shared.call("MGET", self._entry_name(key), *names)
            if None in tokens:
                tokens = await self.shared.call(
                    "EVAL", GET_OR_CREATE_TOKENS, len(names), *names, new_token(), NEW_TOKEN_TTL
                )
        except (RedisError, EpochUnknown, OSError):  # which includes TimeoutError
            return NO_LOOKUP
        if self.shared.connection is not connection:
            return NO_LOOKUP  # these tokens may be from another server
        validator = epoch_digest + b"".join(tokens)
        return Lookup(unpack(stored, validator), validator)

    async def sync_epoch(self) -> ServerConnection:
        """Read the epoch for the current connection; entries of other epochs become invalid.

        So do entries written before a restart or failover of Redis, which may have restored an old
        snapshot or lack the last writes. Raises RedisError or EpochUnknown.
        """
        while True:
            changes = self._epoch_changes
            await self.shared.call("PING")
            connection = self.shared.connection
            if connection is None:
                raise Unreachable("The connection to Redis was lost")
            if self.shared.server.is_replaced:
                # Others may have used this one before: they lack what was invalidated on the last.
                await self.advance_epoch()
                self.shared.server.is_replaced = False
                continue
            epoch = await self._read_epoch()
            if changes == self._epoch_changes:  # else the epoch was advanced meanwhile: read again
                break
        # Concurrent calls may end in any order; the epoch only grows.
        if connection is not self._digest_connection or epoch > self._epoch:
            self._epoch_digest = digest(f"{connection.run_id} {epoch}")
            self._digest_connection = connection
            self._epoch, self._epoch_changed_at = epoch, time.time()
        return connection

    async def _read_epoch(self) -> int:
        try:
            epoch = await self.epoch.read()
        except EpochUnknown as error:
            if self._is_epoch_known:
                log.warning("Nothing is cached: the epoch cannot be read: %s", error)
            self._is_epoch_known = False
            raise
        self._is_epoch_known = True
        return epoch

    def store(self, spec: LoadSpec, entry: Entry, validator: bytes | None) -> None:
        """Queue the commands without waiting for their replies."""
        if validator is None:
            return
        packed = entry.pack(validator)
        if len(packed) > self.settings.max_value:
            self.metrics.cache_too_large.inc()
            return
        ttl = entry.fresh_until - entry.loaded_at + spec.lifetime.stale
        self.shared.send("SET", self._entry_name(spec.key), packed, "PX", int(ttl * 1000))
        if not entry.missing:
            for name in self._tag_names(spec.tags):
                self.shared.send("EXPIRE", name, TOKEN_TTL)

    async def try_lock(
        self, key: str, tags: Sequence[str], validator: bytes
    ) -> tuple[bool, Lookup]:
        """Whether this process may load the entry, and a lookup in the same round trip.

        If Redis fails there is no lock: True.
        """
        reply = self.shared.send(
            "SET", self._lock_name(key, validator), b"", "NX", "PX", LOCK_TTL * 1000
        )
        try:
            lookup = await self.lookup(key, tags)
            is_taken = (await reply) is None  # `reply` resolves to an error instead of raising it
        except BaseException:
            self.unlock(key, validator)
            raise
        return not is_taken, lookup

    def unlock(self, key: str, validator: bytes) -> None:
        # After LOCK_TTL this deletes the lock of another process: two loads do no harm.
        self.shared.send("DEL", self._lock_name(key, validator))

    async def renew(self, tags: Iterable[str]) -> bool:
        """Give these tags new tokens; tries Redis even if the shared connection is down."""
        names = self._tag_names(tags)
        try:
            for start in range(0, len(names), RENEWED_AT_ONCE):
                some = names[start : start + RENEWED_AT_ONCE]
                await self.redis.eval(RENEW_TOKENS, len(some), *some, new_token(), TOKEN_TTL)
        except (RedisError, OSError):
            self.metrics.cache_invalidations["failed"].inc()
            return False
        self.metrics.cache_invalidations["done"].inc()
        return True

    async def advance_epoch(self) -> None:
        """Invalidate all entries. Raises EpochUnknown."""
        self._epoch_changes += 1
        self._digest_connection = None
        try:
            await self.epoch.advance()
        finally:
            self._epoch_changes += 1
            self._digest_connection = None

    def position_of(self, validator: bytes | None) -> float:
        """The `read_position` that has the last write of these tags: that of their newest token, or
        of when this process first saw the current epoch.
        """
        if not self.has_replica or validator is None:  # without a validator nothing is stored
            return READ_ANY
        newest = max(map(created_at, tokens_of(validator[len(self._epoch_digest) :])), default=0.0)
        written_at = max(newest, self._epoch_changed_at) + CLOCK_SKEW
        return written_at - time.time() + time.monotonic()

    def _tag_names(self, tags: Iterable[str]) -> list[str]:
        # Without the release, so that a write by one also invalidates entries of another.
        return [f"{self.settings.namespace}:tag:{shorten(tag)}" for tag in tags]

    def _entry_name(self, key: str) -> str:
        return f"{self.settings.namespace}:entry:{key}"

    def _lock_name(self, key: str, validator: bytes) -> str:
        return f"{self.settings.namespace}:lock:{key}:{validator.hex()}"
