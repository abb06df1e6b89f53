"""The binary format of cache entries: the validator, the times, the payload."""

import random
import struct
import time
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

JITTER = 0.1  # up to this part of a TTL is taken off at random, against simultaneous expiry
MAX_NAME = 200  # characters; a longer name is replaced by its digest
_TIMES = struct.Struct(">dd?")
_TOKEN = struct.Struct(">QI")


class Lifetime(NamedTuple):
    """The times of an entry, all in s."""

    ttl: float
    stale: float = 0  # after `ttl`, still served while it is reloaded (stale-while-revalidate)
    ahead: float = 0  # before the end of `ttl`, a lookup starts a reload (refresh-ahead)
    missing: float = 10  # the only one for values that do not exist (404): negative caching


@dataclass(slots=True)
class Entry:
    """`missing`: the value does not exist, and `payload` is the text of the NotFound."""

    payload: bytes
    missing: bool
    loaded_at: float
    fresh_until: float

    @property
    def age(self) -> float:
        """In s; not negative, although clocks of machines differ."""
        return max(0.0, time.time() - self.loaded_at)

    @property
    def fresh_for(self) -> float:
        return self.fresh_until - time.time()

    def pack(self, validator: bytes) -> bytes:
        times = _TIMES.pack(self.loaded_at, self.fresh_until, self.missing)
        return validator + times + self.payload


def new_entry(payload: bytes, missing: bool, loaded_at: float, lifetime: Lifetime) -> Entry:
    ttl = lifetime.missing if missing else lifetime.ttl
    early = random.random() * JITTER  # noqa: S311 - chance, not a secret
    return Entry(payload, missing, loaded_at, loaded_at + ttl * (1 - early))


def unpack(stored: bytes | None, validator: bytes) -> Entry | None:
    """None if there is none or its validator differs: one of its tags was invalidated."""
    if stored is None or not stored.startswith(validator):
        return None
    loaded_at, fresh_until, missing = _TIMES.unpack_from(stored, len(validator))
    return Entry(stored[len(validator) + _TIMES.size :], missing, loaded_at, fresh_until)


def new_token() -> bytes:
    """A unique version of a tag, which contains its time of creation."""
    return _TOKEN.pack(time.time_ns() // 1_000_000, random.getrandbits(32))


def tokens_of(joined: bytes) -> list[bytes]:
    size = _TOKEN.size
    return [joined[at : at + size] for at in range(0, len(joined), size)]


def created_at(token: bytes) -> float:
    milliseconds: int = _TOKEN.unpack(token)[0]
    return milliseconds / 1000


def shorten(name: str) -> str:
    return name if len(name) <= MAX_NAME else digest(name).hex()


def digest(text: str) -> bytes:
    """16 bytes, collision resistant."""
    return blake2b(text.encode(), digest_size=16).digest()
