import asyncio
import logging
import random
import time
from contextvars import Context

from chassis.cache.entry import Entry, new_entry
from chassis.cache.load_spec import CacheResult, LoadSpec
from chassis.cache.metrics import CacheMetrics
from chassis.cache.store import CacheStore, Lookup
from chassis.errors import AppError, NotFound
from chassis.request_context import read_position
from chassis.tasks.background import spawn
from chassis.tasks.timeout import Timeout

LOCK_WAIT = 2  # s; longest wait for another process to load, before loading as well
LOCK_POLL = 0.02  # s
REFRESH_TIMEOUT = 15  # s

log = logging.getLogger("app.cache")


class Loader:
    """Loads an entry in one process at a time, under a lock in Redis.

    `load_once` waits for a process that holds the lock; `refresh` reloads in the background an
    entry that is still served. An entry is stored with the validator (the tokens of its tags) of a
    lookup before the load, so a write during the load invalidates it: see chassis/cache/store.py.
    """

    def __init__(self, store: CacheStore, metrics: CacheMetrics) -> None:
        self.store = store
        self.metrics = metrics
        self._refreshes: set[asyncio.Task[None]] = set()
        self._refreshing: set[str] = set()

    async def close(self) -> None:
        for task in self._refreshes:
            task.cancel()
        await asyncio.gather(*self._refreshes, return_exceptions=True)

    async def load_once(self, spec: LoadSpec, lookup: Lookup) -> CacheResult:
        """Load, or wait at most LOCK_WAIT for what another process stores."""
        if lookup.validator is None:
            return CacheResult(await self.load(spec, None), "MISS")
        give_up = time.monotonic() + LOCK_WAIT
        while True:
            is_locked, again = await self.store.try_lock(spec.key, spec.tags, lookup.validator)
            if again.entry is not None and again.entry.fresh_for > 0:
                if is_locked:
                    self.store.unlock(spec.key, lookup.validator)
                return CacheResult(again.entry, "HIT")
            if is_locked or time.monotonic() > give_up:
                break
            self.metrics.cache_lock_waits.inc()
            await asyncio.sleep(LOCK_POLL * (0.5 + random.random()))  # noqa: S311
        try:
            entry = await self.load(spec, again.validator)
            may_store = spec.may_store
            if again.validator and (may_store is None or await may_store(len(entry.payload))):
                self.store.store(spec, entry, again.validator)
            return CacheResult(entry, "MISS")
        finally:
            if is_locked:
                self.store.unlock(spec.key, lookup.validator)

    async def load(self, spec: LoadSpec, validator: bytes | None) -> Entry:
        """Reads from no replica that may lack the last write of these tags."""
        self.metrics.cache_loads.inc()
        start = time.time()
        position = max(read_position.get(), self.store.position_of(validator))
        outer = read_position.set(position)
        try:
            payload, missing = await spec.load(), False
        except NotFound as error:
            payload, missing = str(error).encode(), True
        finally:
            read_position.reset(outer)
        return new_entry(payload, missing, start, spec.lifetime)

    def refresh(self, spec: LoadSpec, old: Entry) -> None:
        if spec.key not in self._refreshing:
            self._refreshing.add(spec.key)
            spawn(self._refreshes, self._refresh(spec, old), Context())

    async def _refresh(self, spec: LoadSpec, old: Entry) -> None:
        try:
            validator = (await self.store.lookup(spec.key, spec.tags)).validator
            if validator is None:
                return
            is_locked, lookup = await self.store.try_lock(spec.key, spec.tags, validator)
            if not is_locked:
                return
            if lookup.entry is None or lookup.entry.loaded_at <= old.loaded_at:
                with Timeout(REFRESH_TIMEOUT):
                    entry = await self.load(spec, lookup.validator)
                self.store.store(spec, entry, lookup.validator)
            # After a failure the lock stays until it expires, so that not every process retries.
            self.store.unlock(spec.key, validator)
        except (AppError, TimeoutError) as error:
            log.warning("%s was not refreshed: %s", spec.key, error)
        except Exception:
            log.exception("Could not refresh %s", spec.key)
        finally:
            self._refreshing.discard(spec.key)
