"""The cache itself, on a real Valkey; two sets of resources stand for two processes."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.samples import Sample
from pydantic import BaseModel
from redis import Redis
from sqlalchemy import text

from app.settings import Settings
from chassis.cache.cache import Cache
from chassis.cache.entry import Lifetime, new_entry
from chassis.cache.epoch import EpochUnknown
from chassis.cache.settings import CacheSettings
from chassis.cache.store import CLOCK_SKEW, Lookup
from chassis.database.settings import DatabaseSettings
from chassis.development.private_servers import Server, embedded_valkey
from chassis.errors import NotFound
from chassis.redis.settings import RedisSettings
from chassis.redis.shared_connection import Reply
from chassis.request_context import read_position
from chassis.resources import Resources, open_resources
from tests.databases import mariadb_only, sqlite_only
from tests.process import TIMEOUT, freeze

# What counts is Redis; what asks the database as well says so and is tested on both.
both_databases = pytest.mark.parametrize("empty_database", ["sqlite", "mariadb"], indirect=True)


class Value(BaseModel):
    number: int


@dataclass
class Source:
    """What is cached: a number that is read as it is at the start, and how often."""

    number: int = 1
    loads: int = 0
    before_end: Callable[[], Awaitable[None]] | None = None

    async def load(self) -> Value:
        self.loads += 1
        number = self.number
        if self.before_end is not None:
            await self.before_end()
        return Value(number=number)


@dataclass
class Reader:
    """One process, which asks for a value under one key."""

    resources: Resources
    source: Source
    times: dict[str, float] = field(default_factory=lambda: {"ttl": 60.0})

    @property
    def cache(self) -> Cache:
        return self.resources["cache"]

    async def get(self) -> int:
        value = await self.cache.get_or_load(
            "key", Value, self.source.load, tags=["a", "b"], **self.times
        )
        return value.number


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def reader(resources: Resources, source: Source) -> Reader:
    return Reader(resources, source)


@pytest.fixture
async def other(settings: Settings, source: Source) -> AsyncIterator[Reader]:
    async with open_resources(settings) as resources:
        yield Reader(resources, source)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Server]:
    with embedded_valkey(tmp_path / "valkey") as server:
        yield server


@asynccontextmanager
async def reader_of(settings: Settings, url: str, source: Source) -> AsyncIterator[Reader]:
    settings = settings.model_copy(update={"redis": RedisSettings(url=url)})
    async with open_resources(settings) as resources:
        yield Reader(resources, source)


@sqlite_only
async def test_value_is_loaded_once_until_one_of_its_tags_is_invalidated(reader: Reader):
    assert [await reader.get(), await reader.get()] == [1, 1]
    reader.source.number = 2
    await reader.cache.invalidate("other")
    assert await reader.get() == 1
    await reader.cache.invalidate("b")
    assert await reader.get() == 2
    assert reader.source.loads == 2


@sqlite_only
async def test_hit_is_one_round_trip(reader: Reader, monkeypatch: pytest.MonkeyPatch):
    await reader.get()
    shared, commands = reader.cache.store.shared, []
    send = shared.send

    def record(*command: Any) -> Reply:
        commands.append(command[0])
        return send(*command)

    monkeypatch.setattr(shared, "send", record)
    await reader.get()

    assert commands == ["MGET"]


@sqlite_only
async def test_slow_reader_cannot_store_what_a_write_has_made_old(reader: Reader, other: Reader):
    """The reader has read 1, then 2 is committed and invalidated, then the reader stores 1."""
    source = reader.source
    has_read, may_store = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        has_read.set()
        await may_store.wait()

    source.before_end = wait
    slow = asyncio.create_task(reader.get())
    await has_read.wait()
    source.before_end = None
    source.number = 2
    await other.cache.invalidate("a")

    assert await other.get() == 2  # while the slow one is still on its way, in either process
    assert await reader.get() == 2
    may_store.set()
    assert await slow == 1
    assert [await reader.get(), await other.get()] == [2, 2]


@sqlite_only
async def test_many_who_want_it_at_once_cause_one_load(reader: Reader, other: Reader):
    reader.source.before_end = lambda: asyncio.sleep(0.05)

    values = await asyncio.gather(*(each.get() for each in [reader, other] * 50))

    assert values == [1] * 100
    assert reader.source.loads == 1


@sqlite_only
async def test_lock_of_a_process_that_died_delays_others_but_a_little(
    reader: Reader, other: Reader
):
    """Its load never ends; the lock is on its own when the process is gone."""
    forever = asyncio.Event()

    async def hang() -> None:
        if reader.source.loads == 1:
            await forever.wait()

    reader.source.before_end = hang
    dead = asyncio.create_task(reader.get())
    while reader.source.loads == 0:
        await asyncio.sleep(0)

    async with asyncio.timeout(10):
        assert await other.get() == 1
    dead.cancel()
    assert reader.source.loads == 2


@sqlite_only
async def test_who_waits_takes_over_from_a_cancelled_request(reader: Reader):
    started, may_end = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        started.set()
        await may_end.wait()

    reader.source.before_end = wait
    first, *waiting = [asyncio.create_task(reader.get()) for _ in range(5)]
    await started.wait()
    first.cancel()
    waiting.pop().cancel()
    may_end.set()

    assert await asyncio.gather(*waiting) == [1, 1, 1]
    assert reader.source.loads == 2


@sqlite_only
async def test_all_who_wait_have_the_error_and_it_is_not_kept(reader: Reader):
    async def fail() -> None:
        await asyncio.sleep(0.01)
        raise RuntimeError("no")

    reader.source.before_end = fail
    failures = await asyncio.gather(*(reader.get() for _ in range(5)), return_exceptions=True)
    reader.source.before_end = None

    assert [repr(failure) for failure in failures] == ["RuntimeError('no')"] * 5
    assert reader.source.loads == 1
    assert await reader.get() == 1


@sqlite_only
async def test_that_something_does_not_exist_is_kept_for_a_short_time(reader: Reader):
    async def fail() -> None:
        raise NotFound("There is no value")

    reader.source.before_end = fail
    for _ in range(3):
        with pytest.raises(NotFound, match="There is no value"):
            await reader.get()
    assert reader.source.loads == 1

    reader.source.before_end = None
    await reader.cache.invalidate("a")
    assert await reader.get() == 1


@sqlite_only
async def test_value_that_is_old_by_time_is_served_while_it_is_loaded_anew(reader: Reader):
    reader.times = {"ttl": 0.01, "stale": 60}
    await reader.get()
    await asyncio.sleep(0.02)
    reader.source.number = 2
    reader.times = {"ttl": 60, "stale": 60}

    assert await reader.get() == 1
    async with asyncio.timeout(10):
        while await reader.get() == 1:
            await asyncio.sleep(0)
    assert reader.source.loads == 2


@sqlite_only
async def test_value_that_was_invalidated_is_not_served_while_it_is_loaded_anew(reader: Reader):
    reader.times = {"ttl": 0.01, "stale": 60}
    await reader.get()
    await asyncio.sleep(0.02)
    reader.source.number = 2
    await reader.cache.invalidate("a")

    assert await reader.get() == 2


@sqlite_only
async def test_value_near_its_end_is_loaded_ahead_of_it(reader: Reader, other: Reader):
    reader.times = other.times = {"ttl": 60, "ahead": 60}
    await reader.get()
    reader.source.number = 2

    async with asyncio.timeout(10):
        while reader.source.loads == 1:
            assert await reader.get() in (1, 2)


@sqlite_only
async def test_value_that_is_too_large_is_not_kept(settings: Settings):
    settings.cache.max_value = 20
    async with open_resources(settings) as resources:
        reader = Reader(resources, Source())

        assert [await reader.get(), await reader.get()] == [1, 1]

    assert reader.source.loads == 2


@sqlite_only
async def test_another_shape_does_not_read_the_bytes_of_this_one(reader: Reader):
    class Newer(BaseModel):
        number: int
        unit: str = "s"

    async def load() -> Newer:
        return Newer(number=7)

    await reader.get()
    newer = await reader.cache.get_or_load("key", Newer, load, ttl=60, tags=["a", "b"])

    assert newer.number == 7


@sqlite_only
async def test_cache_that_is_switched_off_loads_each_time(settings: Settings):
    settings.cache = CacheSettings(enabled=False)
    async with open_resources(settings) as resources:
        reader = Reader(resources, Source())
        assert [await reader.get(), await reader.get()] == [1, 1]

    assert reader.source.loads == 2


@sqlite_only
async def test_cache_that_is_switched_off_shares_no_load_of_before_a_write(settings: Settings):
    settings.cache = CacheSettings(enabled=False)
    async with open_resources(settings) as resources:
        reader = Reader(resources, Source())
        has_read, may_end = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            has_read.set()
            await may_end.wait()

        reader.source.before_end = wait
        slow = asyncio.create_task(reader.get())
        await has_read.wait()
        reader.source.before_end, reader.source.number = None, 2

        assert await reader.get() == 2
        may_end.set()
        assert await slow == 1


@both_databases
async def test_writes_that_redis_refuses_are_not_followed_by_old_reads(
    settings: Settings, source: Source, valkey: Server
):
    """It still answers reads: nobody's connection tells that something is wrong."""
    async with reader_of(settings, valkey.url, source) as reader:
        assert [await reader.get(), await reader.get()] == [1, 1]
        with Redis.from_url(valkey.url) as redis:
            redis.config_set("maxmemory-policy", "noeviction")
            redis.config_set("maxmemory", 1)
        old, written = 0, 1
        stopped = asyncio.Event()

        async def keep_reading() -> None:
            nonlocal old
            while not stopped.is_set():
                least = written
                old += await reader.get() < least
                await asyncio.sleep(0)

        reading = [asyncio.create_task(keep_reading()) for _ in range(4)]
        for number in range(2, 12):
            source.number = number
            await reader.cache.invalidate("a")
            written = number
            await asyncio.sleep(0.02)
        stopped.set()
        await asyncio.gather(*reading)

    assert old == 0


@mariadb_only
async def test_watch_goes_on_after_the_queue_for_the_database_was_full(settings: Settings):
    settings.database = DatabaseSettings(
        url=settings.database.url, pool_size=2, max_overflow=0, max_waiting=0
    )
    async with open_resources(settings) as resources:
        cache = resources["cache"]
        await cache.store.sync_epoch()
        async with resources["sessions"].read() as session:
            await session.execute(text("SELECT 1"))
            with pytest.raises(EpochUnknown):
                await cache.store.sync_epoch()
            await asyncio.sleep(1.2)  # it was the turn of the watch meanwhile
        watching = [task for task in asyncio.all_tasks() if task.get_name() == "cache"]

        assert len(watching) == 1
        await cache.store.sync_epoch()


@sqlite_only
async def test_what_is_owed_at_the_end_is_settled(settings: Settings, reader: Reader):
    await reader.get()
    async with open_resources(settings) as resources:
        with pytest.raises(ConnectionError):
            async with resources["cache"].invalidating("a"):
                raise ConnectionError
        await reader.get()
        reader.source.number = 2

    assert await reader.get() == 2


@sqlite_only
async def test_cancelled_request_leaves_no_lock(reader: Reader, monkeypatch: pytest.MonkeyPatch):
    store, lookups = reader.cache.store, 0
    lookup = store.lookup

    async def hang(key: str, tags: Sequence[str]) -> Lookup:
        nonlocal lookups
        lookups += 1
        if lookups == 2:  # the one that comes with the lock
            await asyncio.Event().wait()
        return await lookup(key, tags)

    monkeypatch.setattr(store, "lookup", hang)
    cancelled = asyncio.create_task(reader.get())
    while lookups < 2:
        await asyncio.sleep(0)
    cancelled.cancel()

    assert await reader.get() == 1
    waits = [s for s in metric(reader, "cache_lock_waits_total") if s.value]
    assert waits == []


def metric(reader: Reader, name: str) -> list[Sample]:
    families = reader.resources["metrics"].registry.collect()
    return [sample for family in families for sample in family.samples if sample.name == name]


def test_entries_made_at_once_do_not_end_at_once():
    ends = {new_entry(b"", False, 1000, Lifetime(ttl=100)).fresh_until for _ in range(50)}

    assert len(ends) > 40
    assert 1090 <= min(ends) < max(ends) <= 1100


def test_age_counts_from_the_load_and_is_never_negative():
    old, ahead = (new_entry(b"", False, time.time() + by, Lifetime(60)) for by in (-30, 30))

    assert 30 <= old.age < 60
    assert ahead.age == 0


# What follows needs a Valkey that can be stopped.


@sqlite_only
async def test_event_loop_that_was_blocked_is_not_taken_for_a_redis_that_is_away(
    settings: Settings, source: Source, valkey: Server
):
    async with reader_of(settings, valkey.url, source) as reader:
        await reader.get()
        session = reader.cache.store.shared.connection
        for _ in range(5):
            asked = asyncio.create_task(reader.get())
            await asyncio.sleep(0)
            time.sleep(0.25)
            await asked

        assert reader.cache.store.shared.connection is session is not None


def stop(server: Server) -> None:
    assert server.process is not None
    freeze(server.process)


def go_on(server: Server) -> None:
    assert server.process is not None
    server.process.send_signal(signal.SIGCONT)


async def connected(reader: Reader) -> None:
    async with asyncio.timeout(10):
        while reader.cache.store.shared.connection is None:
            await asyncio.sleep(0.01)


@sqlite_only
async def test_without_redis_values_are_loaded_once_for_all_who_wait(
    settings: Settings, source: Source
):
    async with reader_of(settings, "unix:///nowhere.sock", source) as reader:
        source.before_end = lambda: asyncio.sleep(0.05)

        assert await asyncio.gather(*(reader.get() for _ in range(20))) == [1] * 20
        assert source.loads == 1
        await reader.cache.invalidate("a")
        assert await reader.get() == 1


@sqlite_only
async def test_redis_that_does_not_answer_costs_a_moment_once(
    settings: Settings, source: Source, valkey: Server
):
    async with reader_of(settings, valkey.url, source) as reader:
        await reader.get()
        stop(valkey)
        try:
            async with asyncio.timeout(TIMEOUT):
                assert await reader.get() == 1
                # From now on nobody waits for it.
                for _ in range(10 * TIMEOUT):
                    assert await reader.get() == 1
        finally:
            go_on(valkey)
        await connected(reader)
        loads = source.loads
        await reader.get()

    assert source.loads == loads  # what it held still counts


@both_databases
async def test_what_was_invalidated_while_redis_was_away_is_never_served(
    settings: Settings, source: Source, valkey: Server
):
    """Redis keeps value and tokens, and is back before anybody could tell it of the write."""
    async with (
        reader_of(settings, valkey.url, source) as writer,
        reader_of(settings, valkey.url, source) as reader,
    ):
        assert await reader.get() == 1
        stop(valkey)
        try:
            source.number = 2
            await writer.cache.invalidate("a")
        finally:
            go_on(valkey)
        async with reader_of(settings, valkey.url, source) as newcomer:
            assert await newcomer.get() == 2
        await connected(reader)
        async with asyncio.timeout(10):  # it was not away for this one, which asks once a second
            while await reader.get() != 2:
                await asyncio.sleep(0.01)


@sqlite_only
async def test_what_redis_restores_from_an_old_snapshot_is_never_served(
    settings: Settings, source: Source, valkey: Server
):
    async with reader_of(settings, valkey.url, source) as reader:
        assert [await reader.get(), await reader.get()] == [1, 1]
        with Redis.from_url(valkey.url) as redis:
            redis.save()
        source.number = 2
        await reader.cache.invalidate("a")
        assert valkey.process is not None
        valkey.process.kill()
        valkey.process.wait()
        valkey.start()
        with Redis.from_url(valkey.url) as redis:
            assert redis.keys(f"{settings.cache.namespace}:entry:*")
        await connected(reader)

        assert await reader.get() == 2


@sqlite_only
async def test_commit_whose_answer_is_lost_is_invalidated_again(reader: Reader):
    """It happens only after the first invalidation, and after somebody has read again."""
    await reader.get()
    with pytest.raises(ConnectionError):
        async with reader.cache.invalidating("a"):
            raise ConnectionError
    await reader.get()
    reader.source.number = 2

    async with asyncio.timeout(10):
        while await reader.get() != 2:
            await asyncio.sleep(0.01)


@sqlite_only
async def test_cancelled_request_still_invalidates(reader: Reader):
    await reader.get()
    committed = asyncio.Event()

    async def write() -> None:
        async with reader.cache.invalidating("a"):
            reader.source.number = 2
            committed.set()
            await asyncio.sleep(60)

    writing = asyncio.create_task(write())
    await committed.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing

    assert await reader.get() == 2


@mariadb_only
async def test_a_load_needs_all_up_to_the_last_write_of_its_tags(settings: Settings):
    """Or up to a new epoch: replicas that lack some of it are not read."""
    url = settings.database.url
    settings.database = DatabaseSettings(url=url, read_url=url)
    async with open_resources(settings) as resources:
        cache, positions = resources["cache"], list[tuple[float, float]]()

        async def load() -> Value:
            positions.append((read_position.get() - CLOCK_SKEW, time.monotonic()))
            return Value(number=1)

        await cache.get_or_load("old", Value, load, ttl=60, tags=["b"])
        started = time.monotonic()
        await cache.invalidate("a")
        await cache.get_or_load("a write", Value, load, ttl=60, tags=["b", "a"])
        written = time.monotonic()
        await cache.get_or_load("no write", Value, load, ttl=60, tags=["b"])
        await cache.store.advance_epoch()
        await cache.get_or_load("a new epoch", Value, load, ttl=60)

    rounding = 0.002  # a token has milliseconds
    [old, of_a_write, of_none, of_an_epoch] = positions
    assert old[0] < started + rounding
    assert started - rounding < of_a_write[0] < of_a_write[1] + rounding
    assert of_none[0] == pytest.approx(old[0], abs=rounding)
    assert written - rounding < of_an_epoch[0] < of_an_epoch[1] + rounding
