"""What a caller hands to the cache, and what it gets."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, NamedTuple

from chassis.cache.entry import Entry, Lifetime


class CacheResult(NamedTuple):
    entry: Entry
    state: Literal["HIT", "STALE", "MISS"]


class LoadSpec(NamedTuple):
    """How to load and store the entry under `key`.

    `load` may run after the current request has ended. It is not stored if `may_store`, which is
    called with the size of its payload in bytes, returns False.
    """

    key: str
    load: Callable[[], Awaitable[bytes]]
    lifetime: Lifetime
    tags: Sequence[str]
    may_store: Callable[[int], Awaitable[bool]] | None = None
