"""Bodies on their way, in files: a worker's memory holds no more than BUFFER of each."""

import asyncio
import fcntl
import logging
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from anyio import CapacityLimiter, to_thread

from app.errors import Unavailable

THREADS = 4  # writing to a disk is waiting for it; more would wait for each other
LOCK = "lock"
BUFFER = 262_144  # bytes; each step into a thread costs as much as copying so many
GOODBYE = 2  # s; for what is being deleted when the worker stops

T = TypeVar("T")

log = logging.getLogger("app.uploads")


class Folder:
    """A folder that is this worker's alone, as long as it lives. Its methods block.

    The kernel lets go of the lock in it when the worker dies, be it by kill -9: so whoever looks
    next knows what is left over.
    """

    def __init__(self, parent: Path) -> None:
        self.parent = parent
        self._making = threading.Lock()
        self._own: Path | None = None
        self._lock: BinaryIO | None = None

    def new_file(self) -> Path:
        with self._making:
            own = self._own
            if own is None or not (own / LOCK).exists():
                own = self._own = self._make()
        return own / secrets.token_hex(8)

    def _make(self) -> Path:
        self.parent.mkdir(parents=True, exist_ok=True)
        if self.parent.stat().st_uid not in (os.getuid(), 0):
            raise PermissionError(f"{self.parent} is somebody else's")
        self.close()  # where somebody has deleted what we had
        self.clean()
        with self._alone():
            own = Path(tempfile.mkdtemp(prefix="worker-", dir=self.parent))
            self._lock = _open(own / LOCK)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        return own

    def clean(self) -> None:
        """Delete what workers that are no more have left."""
        if not self.parent.is_dir():
            return
        with self._alone():
            for folder in self.parent.glob("worker-*"):
                if not _is_in_use(folder):
                    shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While nobody else cleans here, or makes a folder that has no lock yet."""
        with _open(self.parent / LOCK) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def close(self) -> None:
        if self._own is not None and self._lock is not None:
            shutil.rmtree(self._own, ignore_errors=True)
            self._lock.close()


class Upload:
    """One file; its methods block."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._left = ExitStack()

    def open(self) -> Path:
        path = self.folder.new_file()
        self._left.callback(path.unlink, missing_ok=True)
        self._file = self._left.enter_context(path.open("xb"))
        return path

    def write(self, content: bytearray) -> None:
        self._file.write(content)

    def finish(self, content: bytearray) -> None:
        self._file.write(content)
        self._file.close()

    def discard(self) -> None:
        with suppress(OSError):  # what is left is deleted with the folder
            self._left.close()


class Steps:
    """One after the other, in threads. Who waits for one may be cancelled; it is done all the same,
    as nothing stops a thread.
    """

    def __init__(self, threads: CapacityLimiter) -> None:
        self._threads = threads
        self._last: asyncio.Task[Any] | None = None

    async def do(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.shield(self.begin(work))
        except OSError as error:
            log.warning("Uploads cannot be kept: %s", error)
            raise Unavailable("There is no room for uploads right now") from error

    def begin(self, work: Callable[[], T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(self._run(self._last, work))
        self._last = task
        return task

    async def _run(self, before: "asyncio.Task[Any] | None", work: Callable[[], T]) -> T:
        if before is not None:
            await asyncio.wait({before})
        return await to_thread.run_sync(work, limiter=self._threads)


class Uploads:
    def __init__(self, folder: Path) -> None:
        self.folder = Folder(folder)
        # Not the threads that everybody shares: a slow disk would take them all.
        self._threads = CapacityLimiter(THREADS)
        self._leaving: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def receive(self, chunks: AsyncIterable[bytes]) -> AsyncIterator[Path]:
        """A file of what comes, which is there as long as the block runs.

        Raises what `chunks` raises, and Unavailable where the disk is full or away.
        """
        upload, steps = Upload(self.folder), Steps(self._threads)
        try:
            path = await steps.do(upload.open)
            buffer = bytearray()
            async for chunk in chunks:
                buffer += chunk
                if len(buffer) >= BUFFER:
                    full, buffer = buffer, bytearray()
                    await steps.do(partial(upload.write, full))
            await steps.do(partial(upload.finish, buffer))
            yield path
        finally:
            # Nobody waits for this: the answer goes first, and a request that is out of time ends.
            leaving = steps.begin(upload.discard)
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def clean(self) -> None:
        """Delete what workers that are no more have left."""
        await Steps(self._threads).do(self.folder.clean)

    async def close(self) -> None:
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=GOODBYE)
        await to_thread.run_sync(self.folder.close)


def _open(path: Path) -> BinaryIO:
    """A file of ours, made if need be; not one that a link of somebody else's leads to."""
    return open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b")


def _is_in_use(folder: Path) -> bool:
    with suppress(FileNotFoundError), (folder / LOCK).open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@asynccontextmanager
async def open_uploads(folder: Path) -> AsyncIterator[Uploads]:
    uploads = Uploads(folder)
    try:
        yield uploads
    finally:
        await uploads.close()
