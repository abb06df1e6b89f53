"""What lies in Redis, and whether it still counts.

An entry belongs to tags. Each tag has a token; a write gives its tags new ones, after the commit.
An entry is stored with the tokens as they were *before* its data was read, and only counts as
long as they are the same: one MGET reads the entry and its tags' tokens. So it does not matter
how late a slow reader stores what it has read. docs/caching.md has the whole argument.
"""

import logging
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as Unreachable
from redis.exceptions import RedisError

from app.cache_entry import Entry, began, digest, new_token, short, unpack
from app.cache_epoch import Epoch, EpochUnknown
from app.deadline import Deadline
from app.metrics import Metrics
from app.settings import CacheSettings
from app.shared_connection import Session, SharedConnection
from app.single_flight import SingleFlight

TOKEN_TTL = 3600  # s; no entry counts for longer. Whoever asks for odd ids makes tokens
LOCK_TTL = 5  # s; one process loads for all so long
CLOCK_SKEW = 0.5  # s; between the machines of two workers

# KEYS: tags; ARGV: a new token, its time to live. Gives each tag's token, new where it had none.
HAVE_TOKENS = """
local tokens = {}
for i, tag in ipairs(KEYS) do
    tokens[i] = redis.call('GET', tag)
    if not tokens[i] then
        redis.call('SET', tag, ARGV[1], 'EX', ARGV[2])
        tokens[i] = ARGV[1]
    end
end
return tokens
"""
RENEW_TOKENS = "for _, tag in ipairs(KEYS) do redis.call('SET', tag, ARGV[1], 'EX', ARGV[2]) end"


log = logging.getLogger("app.cache")


class Look(NamedTuple):
    """What Redis had, and the prefix to store under; no prefix if nothing can be stored."""

    entry: Entry | None
    prefix: bytes | None


NOTHING = Look(None, None)


class CacheStore:
    def __init__(
        self,
        shared: SharedConnection,
        redis: Redis,
        epoch: Epoch,
        settings: CacheSettings,
        metrics: Metrics,
        replica_lag: float,
    ) -> None:
        """`replica_lag`: what a replica shows may have been true so many seconds ago."""
        self.shared = shared
        self.redis = redis
        self.epoch = epoch
        self.settings = settings
        self.metrics = metrics
        self.replica_lag = replica_lag
        self._flights = SingleFlight()
        self._stamp = b""
        self._stamped: Session | None = None  # that the stamp is good for
        self._epoch = 0
        self._stamped_at = 0.0
        self._advances = 0  # how often we have made a stamp worthless, or are about to
        self._is_known = True

    async def look(self, key: str, tags: Sequence[str]) -> Look:
        """One round trip, but for tags without a token. Nothing if Redis is slow or away."""
        if not self.settings.enabled:
            return NOTHING
        names = self._tag_names(tags)
        try:
            session = self.shared.session
            if session is None or session is not self._stamped:
                with Deadline(self.shared.timeout):
                    flight = ("stamp", self._advances)
                    session = await self._flights.run(flight, self.restamp)
            stamp = self._stamp
            stored, *tokens = await self.shared.call("MGET", self._entry_name(key), *names)
            if None in tokens:
                tokens = await self.shared.call(
                    "EVAL", HAVE_TOKENS, len(names), *names, new_token(), TOKEN_TTL
                )
        except (RedisError, EpochUnknown, OSError):  # and with it TimeoutError
            return NOTHING
        if self.shared.session is not session:
            return NOTHING  # whose tokens are these?
        prefix = stamp + b"".join(tokens)
        return Look(unpack(stored, prefix), prefix)

    async def restamp(self) -> Session:
        """Read the epoch, being connected: what was stored in another one does not count.

        Nor does what another start of Redis has stored: it may be back from an old snapshot, or
        a replica that had not heard of the last writes. Raises RedisError or EpochUnknown.
        """
        while True:
            advances = self._advances
            await self.shared.call("PING")
            session = self.shared.session
            if session is None:
                raise Unreachable("Redis went away")
            epoch = await self._read_epoch()
            if advances == self._advances:  # else it may have been read too early
                break
        # Two that run at once may end in the other order; the number only grows.
        if session is not self._stamped or epoch > self._epoch:
            self._stamp, self._stamped = digest(f"{session.run_id} {epoch}"), session
            self._epoch, self._stamped_at = epoch, time.time()
        return session

    async def _read_epoch(self) -> int:
        try:
            epoch = await self.epoch.read()
        except EpochUnknown as error:
            if self._is_known:
                log.warning("Nothing is cached, as the database does not tell the epoch: %s", error)
            self._is_known = False
            raise
        self._is_known = True
        return epoch

    def store(self, key: str, entry: Entry, prefix: bytes | None, stale: float) -> None:
        """Nobody waits for it: the answer is had already."""
        if prefix is None:
            return
        packed = entry.pack(prefix)
        if len(packed) > self.settings.max_value:
            self.metrics.cache_too_large.inc()
            return
        ttl = entry.fresh_until - entry.loaded_at + stale
        self.shared.send("SET", self._entry_name(key), packed, "PX", int(ttl * 1000))

    async def lock_and_look(
        self, key: str, tags: Sequence[str], prefix: bytes
    ) -> tuple[bool, Look]:
        """Whether it is for us to load, and what there is by now; also ours without Redis."""
        asked = self.shared.send(
            "SET", self._lock_name(key, prefix), b"", "NX", "PX", LOCK_TTL * 1000
        )
        try:
            look = await self.look(key, tags)
            is_taken = await asked is None  # with an error in its place nobody has it: all load
        except BaseException:
            self.unlock(key, prefix)
            raise
        return not is_taken, look

    def unlock(self, key: str, prefix: bytes) -> None:
        """It may be another's by now, after LOCK_TTL: then two load, which is no harm."""
        self.shared.send("DEL", self._lock_name(key, prefix))

    async def renew(self, tags: Iterable[str]) -> bool:
        """Give these tags new tokens, trying Redis even where it was away a moment ago."""
        names = self._tag_names(tags)
        try:
            await self.redis.eval(RENEW_TOKENS, len(names), *names, new_token(), TOKEN_TTL)
        except (RedisError, OSError):
            self.metrics.cache_invalidations["failed"].inc()
            return False
        self.metrics.cache_invalidations["done"].inc()
        return True

    async def advance_epoch(self) -> None:
        """Nothing that was stored so far counts any more. Raises EpochUnknown."""
        self._advances += 1
        self._stamped = None
        try:
            await self.epoch.advance()
        finally:
            self._advances += 1
            self._stamped = None

    def is_settled(self, prefix: bytes | None) -> bool:
        """Whether a replica that is read from now has what the last write of these tags changed.

        A write tells by its tokens, or by the epoch. Without a prefix nothing is stored.
        """
        if not self.replica_lag or prefix is None:
            return True
        size = len(new_token())
        tokens = prefix[len(self._stamp) :]
        newest = max(began(tokens[at : at + size]) for at in range(0, len(tokens), size))
        return time.time() > max(newest, self._stamped_at) + self.replica_lag + CLOCK_SKEW

    def _tag_names(self, tags: Iterable[str]) -> list[str]:
        # Without a version: two that run side by side invalidate each other's entries.
        return [f"{self.settings.namespace}:tag:{short(tag)}" for tag in tags]

    def _entry_name(self, key: str) -> str:
        return f"{self.settings.namespace}:entry:{key}"

    def _lock_name(self, key: str, prefix: bytes) -> str:
        return f"{self.settings.namespace}:lock:{key}:{prefix.hex()}"
