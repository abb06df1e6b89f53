"""How a value lies in the cache: what it depends on, its times, then its bytes."""

import random
import struct
import time
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

JITTER = 0.1  # so much of its time an entry may lose, so that not all end at once
MAX_NAME = 200  # characters; what is longer goes by its digest
_TIMES = struct.Struct(">dd?")
_TOKEN = struct.Struct(">QI")


class Lifetime(NamedTuple):
    """All in s; for what does not exist (404), `missing` is the whole."""

    ttl: float
    stale: float = 0  # how long after `ttl` it is served while it is loaded anew
    ahead: float = 0  # how long before the end of `ttl` it is loaded anew if asked for
    missing: float = 10


@dataclass(slots=True)
class Entry:
    payload: bytes
    missing: bool
    loaded_at: float
    fresh_until: float

    @property
    def age(self) -> float:
        """Clocks of machines differ a little: never negative."""
        return max(0.0, time.time() - self.loaded_at)

    @property
    def fresh_for(self) -> float:
        return self.fresh_until - time.time()

    def pack(self, prefix: bytes) -> bytes:
        times = _TIMES.pack(self.loaded_at, self.fresh_until, self.missing)
        return prefix + times + self.payload


def new_entry(payload: bytes, missing: bool, loaded_at: float, lifetime: Lifetime) -> Entry:
    ttl = lifetime.missing if missing else lifetime.ttl
    early = random.random() * JITTER  # noqa: S311 - chance, not a secret
    return Entry(payload, missing, loaded_at, loaded_at + ttl * (1 - early))


def unpack(stored: bytes | None, prefix: bytes) -> Entry | None:
    """None as well if it was stored under another prefix: something it depends on has changed."""
    if stored is None or not stored.startswith(prefix):
        return None
    loaded_at, fresh_until, missing = _TIMES.unpack_from(stored, len(prefix))
    return Entry(stored[len(prefix) + _TIMES.size :], missing, loaded_at, fresh_until)


def new_token() -> bytes:
    """What a tag's generation is called: no two are the same, and it says when it began."""
    return _TOKEN.pack(time.time_ns() // 1_000_000, random.getrandbits(32))


def began(token: bytes) -> float:
    milliseconds: int = _TOKEN.unpack(token)[0]
    return milliseconds / 1000


def short(name: str) -> str:
    return name if len(name) <= MAX_NAME else digest(name).hex()


def digest(text: str) -> bytes:
    """Of 16 bytes: nobody finds two texts with the same one."""
    return blake2b(text.encode(), digest_size=16).digest()
