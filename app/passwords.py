"""Passwords, kept as argon2id hashes."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cached_property, partial
from typing import NamedTuple, TypeVar

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from app.errors import Invalid, Overloaded
from app.password_rules import common_passwords, normalize_password, weakness
from app.settings import PasswordSettings

T = TypeVar("T")


class Verified(NamedTuple):
    matches: bool
    outdated: bool  # what a hash costs has grown since this one was made


class Passwords:
    """Hashing is made to cost much: it is done in a few threads, which the event loop goes before.

    Raises Overloaded where more wait for them than can be served in time.
    """

    def __init__(self, settings: PasswordSettings) -> None:
        self.max_waiting = settings.max_waiting
        self.min_length = settings.min_length
        common_passwords(self.min_length)  # read now rather than while requests wait
        self._hasher = Argon2Hasher(settings.time_cost, settings.memory_cost, parallelism=1)
        self._hash = PasswordHash((self._hasher,))
        self._threads = ThreadPoolExecutor(settings.threads, "passwords", _be_nice)
        self._waiting = 0

    def refuse_weak(self, password: str, email: str) -> None:
        """Raises Invalid where the account of `email` may not have this as its new password."""
        if reason := weakness(password, email, self.min_length):
            raise Invalid(reason, ("body", "password"))

    async def hash(self, password: str) -> str:
        """Raises ValueError where no account may have this password."""
        return await self._run(partial(self._hash.hash, normalize_password(password)))

    async def verify(self, password: str, hash: str | None) -> Verified:
        """`hash` is None where there is no such account, which takes as long to find out.

        What no account may have as its password is refused at once, whatever the account.
        """
        try:
            password = normalize_password(password)
        except ValueError:
            return Verified(matches=False, outdated=False)
        return await self._run(partial(self._verify, password, hash))

    def _verify(self, password: str, hash: str | None) -> Verified:
        known = hash is not None
        hash = hash or self._nobodys
        matches = self._hash.verify(password, hash)
        return Verified(matches and known, self._hasher.check_needs_rehash(hash))

    @cached_property
    def _nobodys(self) -> str:
        return self._hash.hash(os.urandom(16))

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= self.max_waiting:
            raise Overloaded("Too many passwords are being checked right now")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)


def _be_nice() -> None:
    """Linux has a priority for each thread: these take what the event loops leave."""
    if sys.platform == "linux":
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))


@asynccontextmanager
async def open_passwords(settings: PasswordSettings) -> AsyncIterator[Passwords]:
    passwords = Passwords(settings)
    try:
        yield passwords
    finally:
        await asyncio.to_thread(passwords.close)
