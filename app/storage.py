"""Files that outlive a process: in an S3-compatible store, or in a folder."""

import asyncio
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import obstore
from anyio import CapacityLimiter, to_thread
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from app.errors import Unavailable
from app.settings import FilesSettings, Settings
from app.signed_urls import SignedUrls

BATCH = 1000  # names of one question, which is what S3 gives at once
CHUNK = 65_536  # bytes
RETRIES = 2

log = logging.getLogger("app.storage")


class Storage(ABC):
    """Each file is whole or not there, and never changes: what is new has a new key."""

    attributes: dict[str, str] | None = None  # what files are stored with

    def __init__(self, timeout: float) -> None:
        """`timeout`: longest wait for anything but a list, s."""
        self.timeout = timeout

    @cached_property
    def store(self) -> Any:
        """obstore's, opened when it is first used: a service starts without its files."""
        return self.open_store()

    @abstractmethod
    def open_store(self) -> Any: ...

    @abstractmethod
    async def sign(self, key: str) -> str:
        """A URL that is good for a while."""

    async def put(self, key: str, content: bytes) -> None:
        async with _reached(self.timeout):
            await obstore.put_async(
                self.store, key, content, attributes=self.attributes, use_multipart=False
            )

    async def batches(self, prefix: str) -> AsyncIterator[list[str]]:
        """The keys of all below `prefix`."""
        async with _reached(None):
            async for batch in obstore.list(self.store, prefix, chunk_size=BATCH):
                yield [found["path"] for found in batch]

    async def delete(self, keys: Sequence[str]) -> None:
        """What is not there any more is no error."""
        async with _reached(None):
            with suppress(FileNotFoundError):
                await obstore.delete_async(self.store, keys)


class FolderStorage(Storage):
    def __init__(self, folder: Path, urls: SignedUrls, timeout: float) -> None:
        super().__init__(timeout)
        self.folder = folder
        self.urls = urls
        self._threads = CapacityLimiter(1)

    def open_store(self) -> LocalStore:
        return LocalStore(self.folder, mkdir=True, automatic_cleanup=True)

    async def sign(self, key: str) -> str:
        return self.urls.sign(key)

    async def size(self, key: str) -> int | None:
        """In bytes; None where there is no such file."""
        async with _reached(self.timeout):
            with suppress(FileNotFoundError):
                meta = await obstore.head_async(self.store, key)
                return int(meta["size"])
        return None

    async def read(self, key: str, part: range) -> AsyncIterator[bytes]:
        """Its bytes of these numbers, as a stream."""
        async with _reached(self.timeout):
            options: Any = {"range": (part.start, part.stop)}
            found = await obstore.get_async(self.store, key, options=options)
        async for chunk in found.stream(min_chunk_size=CHUNK):
            yield bytes(chunk)

    async def tidy(self, before: datetime) -> None:
        """Delete what was begun before that time and never became a file."""
        await to_thread.run_sync(self._tidy, before.timestamp(), limiter=self._threads)

    def _tidy(self, before: float) -> None:
        # LocalStore writes to `name#1`, then renames it; what a killed process left stays.
        for folder, _, names in os.walk(self.folder, topdown=False):
            paths = [Path(folder, name) for name in names if "#" in name]
            for path in paths:
                with suppress(FileNotFoundError):  # it has got its name meanwhile
                    if path.stat().st_mtime < before:
                        path.unlink()
            if paths:
                with suppress(OSError):  # there is something else in it
                    Path(folder).rmdir()


class BucketStorage(Storage):
    def __init__(self, files: FilesSettings) -> None:
        super().__init__(files.timeout)
        self.files = files
        self.attributes = {
            "Content-Type": "image/webp",
            "Cache-Control": f"private, max-age={files.url_ttl}",
        }

    def open_store(self) -> S3Store:
        return _bucket(self.files, self.files.endpoint)

    @cached_property
    def _public(self) -> S3Store:
        return _bucket(self.files, self.files.public_endpoint or self.files.endpoint)

    async def sign(self, key: str) -> str:
        ttl = timedelta(seconds=self.files.url_ttl)
        # It may have to ask for credentials first.
        async with _reached(self.timeout):
            return await obstore.sign_async(self._public, "GET", key, ttl)


@asynccontextmanager
async def _reached(limit: float | None) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(limit):
            yield
    except (BaseError, OSError) as error:
        log.info("The file store failed: %.300s", str(error) or repr(error))
        raise Unavailable("The file store does not answer right now") from error


def make_storage(settings: Settings) -> Storage | None:
    """None where FILES_URL is not set."""
    files = settings.files
    if files.folder is not None:
        return FolderStorage(files.folder / "objects", SignedUrls(settings), files.timeout)
    return None if files.url is None else BucketStorage(files)


def _bucket(files: FilesSettings, endpoint: str | None) -> S3Store:
    given = {"endpoint": endpoint, "region": files.region}
    if files.access_key_id is not None and files.secret_access_key is not None:
        given["access_key_id"] = files.access_key_id
        given["secret_access_key"] = files.secret_access_key.get_secret_value()
    limit = timedelta(seconds=files.timeout)
    return S3Store.from_url(
        str(files.url),
        config={name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
        client_options={"timeout": limit, "connect_timeout": limit, "allow_http": True},
        retry_config={"max_retries": RETRIES, "retry_timeout": limit},
    )
