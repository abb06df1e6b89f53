"""Request bodies in temporary files: a worker's memory holds no more than BUFFER of each."""

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterable, AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import IO, TypeVar

from chassis.errors import Unavailable

BUFFER = 262_144  # bytes; each step into a thread costs as much as copying so many

T = TypeVar("T")

log = logging.getLogger("app.uploads")


class Uploads:
    """Writes request bodies to unnamed temporary files (docs/files.md).

    The kernel frees an unnamed file when the process that has it open ends, also by SIGKILL. All
    file operations run in one thread, in order: a file is closed after its last write even if its
    request was cancelled in between. A disk that hangs blocks that thread only, not the event loop
    or the threads of other work.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._thread = ThreadPoolExecutor(1, "uploads")

    @asynccontextmanager
    async def receive(self, chunks: AsyncIterable[bytes]) -> AsyncIterator[str]:
        """The path of a file with the body, which child processes can open within the block.

        Raises what `chunks` raises, and Unavailable if the file cannot be written.
        """
        opening = self._thread.submit(self._open)
        try:
            file = await _result(opening)
            buffer = bytearray()
            async for chunk in chunks:
                buffer += chunk
                if len(buffer) >= BUFFER:
                    full, buffer = buffer, bytearray()
                    await _result(self._thread.submit(file.write, full))
            await _result(self._thread.submit(partial(_finish, file, buffer)))
            yield _path(file)
        finally:
            self._thread.submit(_close, opening)  # not awaited: the response need not wait for it

    def _open(self) -> IO[bytes]:
        self.folder.mkdir(parents=True, exist_ok=True)
        # Elsewhere a child process can open a file only by its name.
        make = TemporaryFile if sys.platform == "linux" else NamedTemporaryFile
        return make(dir=self.folder)


async def _result(future: Future[T]) -> T:
    try:
        return await asyncio.wrap_future(future)
    except OSError as error:
        log.warning("Uploads cannot be stored: %s", error)
        raise Unavailable("There is no room for uploads right now") from error


def _path(file: IO[bytes]) -> str:
    return f"/proc/{os.getpid()}/fd/{file.fileno()}" if sys.platform == "linux" else file.name


def _finish(file: IO[bytes], content: bytearray) -> None:
    file.write(content)
    file.flush()


def _close(opening: Future[IO[bytes]]) -> None:
    if not opening.cancelled():
        with suppress(OSError):  # the disk is full, or the file was never opened
            opening.result().close()


@asynccontextmanager
async def open_uploads(folder: Path) -> AsyncIterator[Uploads]:
    uploads = Uploads(folder)
    try:
        yield uploads
    finally:
        uploads._thread.shutdown(wait=False)
