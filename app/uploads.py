"""Bodies on their way, in files: a worker's memory holds a few kilobytes of each."""

import asyncio
import fcntl
import logging
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from anyio import CapacityLimiter, to_thread

from app.errors import Unavailable

THREADS = 4  # writing to a disk is waiting for it; more would wait for each other
LOCK = "lock"

T = TypeVar("T")

log = logging.getLogger("app.uploads")


class Uploads:
    """Files of a folder that is this worker's alone, as long as it lives.

    The kernel lets go of the lock in it when the worker dies, be it by kill -9: so whoever looks
    next knows what is left over.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Not the threads that everybody shares: a slow disk would take them all.
        self._threads = CapacityLimiter(THREADS)
        self._making = asyncio.Lock()
        self._own: Path | None = None
        self._lock: BinaryIO | None = None

    @asynccontextmanager
    async def receive(self, chunks: AsyncIterable[bytes]) -> AsyncIterator[Path]:
        """A file of what comes, which is there as long as the block runs.

        Raises what `chunks` raises, and Unavailable where the disk is full or away.
        """
        path = await self._folder() / secrets.token_hex(8)
        try:
            with _disk():
                file = await self._do(lambda: path.open("xb"))
            try:
                async for chunk in chunks:
                    with _disk():
                        await self._do(partial(file.write, chunk))
            finally:
                with _disk():
                    await self._do(file.close)
            yield path
        finally:
            path.unlink(missing_ok=True)

    async def clean(self) -> None:
        """Delete what workers that are no more have left."""
        with _disk():
            await self._do(self._clean)

    async def _folder(self) -> Path:
        async with self._making:
            if self._own is None:
                with _disk():
                    self._own = await self._do(self._make)
            return self._own

    async def _do(self, work: Callable[[], T]) -> T:
        return await to_thread.run_sync(work, limiter=self._threads)

    def _make(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._clean()
        with self._alone():
            own = Path(tempfile.mkdtemp(prefix="worker-", dir=self.folder))
            self._lock = (own / LOCK).open("wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        return own

    def _clean(self) -> None:
        if not self.folder.is_dir():
            return
        with self._alone():
            for folder in self.folder.glob("worker-*"):
                if not _is_in_use(folder):
                    shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While nobody else cleans here, or makes a folder that has no lock yet."""
        with (self.folder / LOCK).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def close(self) -> None:
        if self._own is not None and self._lock is not None:
            shutil.rmtree(self._own, ignore_errors=True)
            self._lock.close()


def _is_in_use(folder: Path) -> bool:
    with suppress(FileNotFoundError), (folder / LOCK).open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        log.warning("Uploads cannot be kept: %s", error)
        raise Unavailable("There is no room for uploads right now") from error


@asynccontextmanager
async def open_uploads(folder: Path) -> AsyncIterator[Uploads]:
    uploads = Uploads(folder)
    try:
        yield uploads
    finally:
        await asyncio.to_thread(uploads.close)
