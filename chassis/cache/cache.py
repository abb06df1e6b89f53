import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TypeVar

from pydantic import TypeAdapter
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import IntegrityError

from chassis.cache.entry import Lifetime
from chassis.cache.epoch import Epoch, EpochUnknown
from chassis.cache.load_spec import CacheResult, LoadSpec
from chassis.cache.loader import Loader
from chassis.cache.metrics import CacheMetrics
from chassis.cache.settings import CacheSettings
from chassis.cache.store import CacheStore
from chassis.cache.type_fingerprint import adapter_of, fingerprint
from chassis.errors import NotFound
from chassis.redis.shared_connection import SharedConnection
from chassis.request_context import read_position
from chassis.tasks.background import background, spawn
from chassis.tasks.single_flight import SingleFlight
from chassis.telemetry.metrics import Metrics

SYNC_INTERVAL = 1  # s; between two reads of the epoch
# Of an invalidation that failed, or around a commit with an unknown outcome; SYNC_INTERVAL apart.
REPEATS = 5

T = TypeVar("T")

log = logging.getLogger("app.cache")


class Cache:
    """A read-through cache with tags.

    `get_or_load` (typed values) and `fetch` (bytes) return an entry or load it; concurrent misses
    share one load, in this process by single flight, among processes by a lock. A *tag* names data
    that an entry is made from: commit changes of it within `invalidating(*tags)`, and no reader
    gets an older value, stale ones included (docs/caching.md has the argument and the exceptions).
    If Redis fails, values are loaded and not stored, and invalidations go through the database
    (Epoch).
    """

    def __init__(self, store: CacheStore, release: str, metrics: Metrics) -> None:
        """`release`: version of the service; releases do not share entries."""
        self.release = release
        self.store = store
        self.metrics = metrics.of(CacheMetrics)
        self._flights = SingleFlight()
        self._loader = Loader(store, self.metrics)
        self._invalidations: set[asyncio.Task[None]] = set()
        self._repeats: dict[str, int] = {}  # remaining repetitions of each tag
        self._writes = 0

    async def get_or_load(
        self,
        key: str,
        type: type[T],
        load: Callable[[], Awaitable[T]],
        *,
        ttl: float,
        tags: Sequence[str] = (),
        stale: float = 0,
        ahead: float = 0,
    ) -> T:
        """The value under `key`, which is global: begin it with a name of your own.

        Raises what `load` raises; its NotFound is cached for a while, too. `load` may run after
        the current request has ended, so it must open a database session of its own. From `ahead`
        s before the end of `ttl` s until `stale` s after it, callers get the old value, and one
        load in the background replaces it; an invalidated value is never returned.
        """
        adapter: TypeAdapter[T] = adapter_of(type)  # type: ignore[arg-type]

        async def load_bytes() -> bytes:
            return adapter.dump_json(await load())

        version = fingerprint(self.release, type)  # type: ignore[arg-type]
        spec = LoadSpec(f"{version}:{key}", load_bytes, Lifetime(ttl, stale, ahead), tags)
        entry, _ = await self.fetch(spec)
        if entry.missing:
            raise NotFound(entry.payload.decode())
        return adapter.validate_json(entry.payload)

    async def fetch(
        self, spec: LoadSpec, check: Callable[[], Awaitable[None]] | None = None
    ) -> CacheResult:
        """The entry, from the cache or loaded.

        `check` runs in every call, also on a hit. Raises its error, or that of `load`, which
        callers share that share a load. NotFound is not raised: it is an entry that is `missing`.
        """
        lookup = await self.store.lookup(spec.key, spec.tags)
        if check is not None:
            await check()
        if (entry := lookup.entry) is not None:
            lifetime, fresh_for = spec.lifetime, entry.fresh_for
            if fresh_for > 0:
                if fresh_for < lifetime.ahead and not entry.missing:
                    self._loader.refresh(spec, entry)
                self.metrics.cache_lookups["hit"].inc()
                return CacheResult(entry, "HIT")
            if fresh_for > -lifetime.stale and not entry.missing:
                self._loader.refresh(spec, entry)
                self.metrics.cache_lookups["stale"].inc()
                return CacheResult(entry, "STALE")
        self.metrics.cache_lookups["miss" if lookup.validator else "unavailable"].inc()
        if not self.store.settings.enabled:
            return CacheResult(await self._loader.load(spec, None), "MISS")
        # Each write of its tags changes the validator: later callers must not join an older load.
        # Without Redis only writes of this process can be seen.
        version = f"write {self._writes}" if lookup.validator is None else lookup.validator
        flight_key = (spec.key, version, read_position.get())
        return await self._flights.run(flight_key, partial(self._loader.load_once, spec, lookup))

    async def invalidate(self, *tags: str) -> None:
        """Call it after the commit: entries with any of these tags are no longer served."""
        self._writes += 1
        connected = self.store.shared.connection is not None
        # Twice: the first attempt may meet a connection that has just been lost.
        if connected and (await self.store.renew(tags) or await self.store.renew(tags)):
            return
        # Redis may come back at any moment with its old entries: invalidate them by the epoch.
        try:
            await self.store.advance_epoch()
        except EpochUnknown:
            log.exception("An invalidation reached neither Redis nor the database")
            self._repeat_later(tags)
        # Other workers may serve older entries until they read the new epoch. If Redis is back,
        # new tokens end that at once.
        await self.store.renew(tags)

    @asynccontextmanager
    async def invalidating(self, *tags: str) -> AsyncIterator[None]:
        """Commit within it: `tags` are invalidated even if the reply to the commit is lost."""
        try:
            yield
        except BaseException as error:
            if not isinstance(error, IntegrityError):
                # Only that proves that nothing was committed; else a commit may still happen, after
                # the invalidation below.
                self._repeat_later(tags)
            raise
        finally:
            await asyncio.shield(spawn(self._invalidations, self.invalidate(*tags)))

    async def run(self) -> None:
        """Read the epoch periodically, as others may have advanced it; repeat invalidations."""
        while True:
            try:
                if self.store.settings.enabled:
                    with suppress(RedisError, EpochUnknown, OSError):
                        await self.store.sync_epoch()
                await asyncio.sleep(SYNC_INTERVAL)
                await self._repeat_invalidations()
            except Exception:
                log.exception("Could not read the epoch or repeat invalidations")

    async def close(self) -> None:
        await self._loader.close()
        await asyncio.gather(*self._invalidations, return_exceptions=True)
        await self._repeat_invalidations()

    def _repeat_later(self, tags: Iterable[str]) -> None:
        self._repeats.update(dict.fromkeys(tags, REPEATS))

    async def _repeat_invalidations(self) -> None:
        tags = [*self._repeats]
        self._repeats = {tag: times - 1 for tag, times in self._repeats.items() if times > 1}
        if tags:
            await self.invalidate(*tags)


@asynccontextmanager
async def open_cache(
    settings: CacheSettings,
    release: str,
    shared: SharedConnection,
    redis: Redis,
    epoch: Epoch,
    metrics: Metrics,
    has_replica: bool,
) -> AsyncIterator[Cache]:
    store = CacheStore(shared, redis, epoch, settings, metrics, has_replica)
    cache = Cache(store, release, metrics)
    try:
        async with background(cache.run(), "cache"):
            yield cache
    finally:
        await cache.close()
