"""A read-through cache: who loads what is not there, who waits for it, and what ends it."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import Context, ContextVar
from functools import cache, partial
from typing import Any, Literal, NamedTuple, TypeVar

import orjson
from pydantic import TypeAdapter
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import IntegrityError

from app.background import background
from app.cache_entry import Entry, Lifetime, digest, new_entry
from app.cache_epoch import Epoch, EpochUnknown
from app.cache_store import CacheStore, Look
from app.deadline import Deadline
from app.errors import AppError, NotFound
from app.metrics import Metrics
from app.request_context import read_primary
from app.settings import Settings
from app.shared_connection import SharedConnection
from app.single_flight import SingleFlight
from app.version import VERSION

LOCK_WAIT = 2  # s; who waits for another process to load does so no longer, then loads as well
LOCK_LOOK = 0.02  # s; and looks so often whether it has
REFRESH_TIMEOUT = 15  # s
WATCH = 1  # s; how often the epoch is read
REPEATS = 5  # times that what is owed is invalidated, one every WATCH s

# Set while a request wants to know what the database says.
bypassed: ContextVar[bool] = ContextVar("bypassed", default=False)

Load = Callable[[], Awaitable[bytes]]
Admit = Callable[[], Awaitable[None]]
T = TypeVar("T")

log = logging.getLogger("app.cache")


class Found(NamedTuple):
    entry: Entry
    state: Literal["HIT", "STALE", "MISS"]


class Recipe(NamedTuple):
    """How to have an entry anew; `load` may run when the request at hand is over."""

    key: str
    load: Load
    lifetime: Lifetime
    tags: Sequence[str]


async def admit_all() -> None:
    pass


class Cache:
    def __init__(self, store: CacheStore, metrics: Metrics) -> None:
        self.store = store
        self.metrics = metrics
        self._flights = SingleFlight()
        self._refreshes: set[asyncio.Task[None]] = set()
        self._invalidations: set[asyncio.Task[None]] = set()
        self._refreshing: set[str] = set()
        self._owed: dict[str, int] = {}  # tags to invalidate again, and how often
        self._writes = 0

    async def get_or_load(
        self,
        key: str,
        type: type[T],
        load: Callable[[], Awaitable[T]],
        *,
        ttl: float,
        tags: Sequence[str],
        stale: float = 0,
        ahead: float = 0,
    ) -> T:
        """The value under `key`, loaded if need be; raises what `load` raises.

        `load` may run when the request at hand is over, and its NotFound is kept as well. The
        times, in s, are those of Lifetime.
        """
        if bypassed.get():
            return await load()
        adapter: TypeAdapter[T] = _adapter(type)  # type: ignore[arg-type]

        async def load_bytes() -> bytes:
            return adapter.dump_json(await load())

        version = fingerprint(type)  # type: ignore[arg-type]
        recipe = Recipe(f"{version}:{key}", load_bytes, Lifetime(ttl, stale, ahead), tags)
        entry, _ = await self.fetch(recipe)
        if entry.missing:
            raise NotFound(entry.payload.decode())
        return adapter.validate_json(entry.payload)

    async def fetch(self, recipe: Recipe, admit: Admit = admit_all) -> Found:
        """The entry, from the cache or loaded; raises what `load` raises.

        `admit` may object, before anything costly happens, with an error of the caller's own: what
        `load` raises is for all who wait for it.
        """
        look = await self.store.look(recipe.key, recipe.tags)
        await admit()
        if (entry := look.entry) is not None:
            lifetime, fresh_for = recipe.lifetime, entry.fresh_for
            if fresh_for > 0:
                if fresh_for < lifetime.ahead and not entry.missing:
                    self._refresh(recipe, entry)
                self.metrics.cache_lookups["hit"].inc()
                return Found(entry, "HIT")
            if fresh_for > -lifetime.stale and not entry.missing:
                self._refresh(recipe, entry)
                self.metrics.cache_lookups["stale"].inc()
                return Found(entry, "STALE")
        self.metrics.cache_lookups["miss" if look.prefix else "unavailable"].inc()
        if not self.store.settings.enabled:
            return Found(await self._load(recipe, None), "MISS")
        # Who saw other tokens wants another flight: the one on its way may have read old data.
        # Without Redis nobody knows of writes elsewhere; at least ours count.
        seen = f"write {self._writes}" if look.prefix is None else look.prefix
        flight = (recipe.key, seen, read_primary.get())
        return await self._flights.run(flight, partial(self._load_once, recipe, look))

    async def invalidate(self, *tags: str) -> None:
        """Whatever depends on these is never served again. Call it after the commit."""
        self._writes += 1
        connected = self.store.shared.session is not None
        if connected and (await self.store.renew(tags) or await self.store.renew(tags)):
            return
        # Redis may still hold what is old now, and be back at any moment: the database tells.
        try:
            await self.store.advance_epoch()
        except EpochUnknown:
            log.exception("Neither Redis nor the database takes an invalidation; it is repeated")
            self._owe(tags)
        # Who reached Redis before that has not seen it; but then we reach Redis as well.
        await self.store.renew(tags)

    @asynccontextmanager
    async def invalidating(self, *tags: str) -> AsyncIterator[None]:
        """Commit within it: `tags` are invalidated even if the commit's answer is lost."""
        try:
            yield
        except BaseException as error:
            if not isinstance(error, IntegrityError):
                # It may yet happen, after the invalidation below.
                self._owe(tags)
            raise
        finally:
            await asyncio.shield(_spawn(self._invalidations, self.invalidate(*tags)))

    async def run(self) -> None:
        """Watch the epoch, for when others cannot reach Redis; settle what is owed."""
        while True:
            try:
                if self.store.settings.enabled:
                    with suppress(RedisError, EpochUnknown, OSError):
                        await self.store.restamp()
                await asyncio.sleep(WATCH)
                await self._settle()
            except Exception:
                log.exception("The cache could not be watched")

    async def close(self) -> None:
        for task in self._refreshes:
            task.cancel()
        await asyncio.gather(*self._refreshes, *self._invalidations, return_exceptions=True)
        await self._settle()

    def _owe(self, tags: Iterable[str]) -> None:
        self._owed.update(dict.fromkeys(tags, REPEATS))

    async def _settle(self) -> None:
        owed = [*self._owed]
        self._owed = {tag: times - 1 for tag, times in self._owed.items() if times > 1}
        if owed:
            await self.invalidate(*owed)

    async def _load_once(self, recipe: Recipe, look: Look) -> Found:
        """Load, unless another process does; then wait a little for what it stores."""
        if look.prefix is None:
            return Found(await self._load(recipe, None), "MISS")
        give_up = time.monotonic() + LOCK_WAIT
        while True:
            ours, again = await self.store.lock_and_look(recipe.key, recipe.tags, look.prefix)
            if again.entry is not None and again.entry.fresh_for > 0:
                if ours:
                    self.store.unlock(recipe.key, look.prefix)
                return Found(again.entry, "HIT")
            if ours or time.monotonic() > give_up:
                break
            self.metrics.cache_lock_waits.inc()
            await asyncio.sleep(LOCK_LOOK * (0.5 + random.random()))  # noqa: S311
        try:
            entry = await self._load(recipe, again.prefix)
            self.store.store(recipe.key, entry, again.prefix, recipe.lifetime.stale)
            return Found(entry, "MISS")
        finally:
            if ours:
                self.store.unlock(recipe.key, look.prefix)

    async def _load(self, recipe: Recipe, prefix: bytes | None) -> Entry:
        """What is stored under `prefix` must have all that the last write has changed."""
        self.metrics.cache_loads.inc()
        start = time.time()
        outer = read_primary.set(read_primary.get() or not self.store.is_settled(prefix))
        try:
            payload, missing = await recipe.load(), False
        except NotFound as error:
            payload, missing = str(error).encode(), True
        finally:
            read_primary.reset(outer)
        return new_entry(payload, missing, start, recipe.lifetime)

    def _refresh(self, recipe: Recipe, old: Entry) -> None:
        if recipe.key not in self._refreshing:
            self._refreshing.add(recipe.key)
            _spawn(self._refreshes, self._load_anew(recipe, old), Context())

    async def _load_anew(self, recipe: Recipe, old: Entry) -> None:
        try:
            prefix = (await self.store.look(recipe.key, recipe.tags)).prefix
            if prefix is None:
                return
            ours, look = await self.store.lock_and_look(recipe.key, recipe.tags, prefix)
            if not ours:
                return
            if look.entry is None or look.entry.loaded_at <= old.loaded_at:
                with Deadline(REFRESH_TIMEOUT):
                    entry = await self._load(recipe, look.prefix)
                self.store.store(recipe.key, entry, look.prefix, recipe.lifetime.stale)
            # After a failure it stays, so that not everybody fails as well.
            self.store.unlock(recipe.key, prefix)
        except (AppError, TimeoutError) as error:
            log.warning("%s is not loaded anew: %s", recipe.key, error)
        except Exception:
            log.exception("Could not load %s anew", recipe.key)
        finally:
            self._refreshing.discard(recipe.key)


def _spawn(
    tasks: "set[asyncio.Task[None]]",
    work: Coroutine[Any, Any, None],
    context: Context | None = None,
) -> "asyncio.Task[None]":
    task = asyncio.create_task(work, context=context)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


@cache
def _adapter(type: Any) -> TypeAdapter[Any]:
    return TypeAdapter(type)


@cache
def fingerprint(type: Any) -> str:
    """Another one for each shape: a deploy that changes it does not read what it cannot."""
    schema = _adapter(type).json_schema(mode="serialization")
    return digest(VERSION + orjson.dumps(schema, option=orjson.OPT_SORT_KEYS).decode()).hex()


@asynccontextmanager
async def open_cache(
    settings: Settings, shared: SharedConnection, redis: Redis, epoch: Epoch, metrics: Metrics
) -> AsyncIterator[Cache]:
    lag = settings.database.read_lag if settings.database.read_url else 0
    cache = Cache(CacheStore(shared, redis, epoch, settings.cache, metrics, lag), metrics)
    try:
        async with background(cache.run(), "cache"):
            yield cache
    finally:
        await cache.close()
