"""Hashes passwords with argon2id, and verifies them."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import NamedTuple, TypeVar

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from chassis.auth.password_rules import common_passwords, normalize_password, weakness
from chassis.auth.settings import PasswordSettings
from chassis.errors import Invalid, Overloaded

T = TypeVar("T")


class Verified(NamedTuple):
    matches: bool
    outdated: bool  # the hash has another cost than the settings


class Passwords:
    """Hashes in a few threads of low priority, as hashing is slow by design.

    Raises Overloaded where more than PASSWORDS_MAX_WAITING hashes are queued.
    """

    def __init__(self, settings: PasswordSettings) -> None:
        self.max_waiting = settings.max_waiting
        self.min_length = settings.min_length
        common_passwords(self.min_length)  # read at start, not in a request
        self._hasher = Argon2Hasher(settings.time_cost, settings.memory_cost, parallelism=1)
        self._hash = PasswordHash((self._hasher,))
        self._threads = ThreadPoolExecutor(settings.threads, "passwords", _lower_priority)
        self._waiting = 0

    def refuse_weak(self, password: str, email: str) -> None:
        """Raises Invalid where the account of `email` may not have this as its new password."""
        if reason := weakness(password, email, self.min_length):
            raise Invalid(reason, ("body", "password"))

    async def hash(self, password: str) -> str:
        """Raises ValueError where no account may have this password."""
        return await self._run(partial(self._hash.hash, normalize_password(password)))

    async def verify(self, password: str, hash: str | None) -> Verified:
        """`hash` is None where there is no such account, which takes as long to verify. A password
        that no account may have is refused at once.
        """
        try:
            password = normalize_password(password)
        except ValueError:
            return Verified(matches=False, outdated=False)
        return await self._run(partial(self._verify, password, hash))

    def _verify(self, password: str, hash: str | None) -> Verified:
        exists = hash is not None
        hash = hash or self._dummy_hash
        matches = self._hash.verify(password, hash)
        return Verified(matches and exists, self._hasher.check_needs_rehash(hash))

    @cached_property
    def _dummy_hash(self) -> str:
        return self._hash.hash(os.urandom(16))

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= self.max_waiting:
            raise Overloaded("Too many passwords are being checked")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)


def _lower_priority() -> None:
    """Linux schedules threads: these get the CPU time that event loops leave."""
    if sys.platform == "linux":
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))
