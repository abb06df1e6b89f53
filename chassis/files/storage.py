import asyncio
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from functools import cached_property
from mimetypes import guess_type
from pathlib import Path
from typing import Any

import obstore
from anyio import to_thread
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from chassis.errors import Unavailable
from chassis.files.settings import FilesSettings
from chassis.files.signed_urls import SignedUrls

BATCH = 1000  # keys of one page, which is the maximum of S3
RETRIES = 2
CHECKS = "checks"  # folder of the files that the preflight check writes

log = logging.getLogger("app.storage")


def content_type(key: str) -> str:
    return guess_type(key, strict=False)[0] or "application/octet-stream"


class Storage(ABC):
    """Immutable files by key, in a folder or a bucket (docs/files.md).

    A file is stored whole or not at all and never changes: new content gets a new key
    (docs/decisions/0016). All methods raise Unavailable if the storage fails or exceeds `timeout`.
    """

    def __init__(self, timeout: float) -> None:
        """`timeout`: s; not for `batches` and `delete`."""
        self.timeout = timeout

    @cached_property
    def store(self) -> Any:
        """Opened at first use: a service starts without its storage."""
        return self.open_store()

    @abstractmethod
    def open_store(self) -> Any: ...

    @abstractmethod
    async def sign(self, key: str) -> str:
        """A URL of the file with a limited lifetime."""

    async def put(self, key: str, content: bytes) -> None:
        async with _available(self.timeout):
            await obstore.put_async(
                self.store, key, content, attributes=self.attributes(key), use_multipart=False
            )

    def attributes(self, key: str) -> dict[str, str] | None:
        """Response headers that a bucket stores with the file."""
        return None

    async def batches(self, prefix: str) -> AsyncIterator[list[str]]:
        async with _available(None):
            async for batch in obstore.list(self.store, prefix, chunk_size=BATCH):
                yield [found["path"] for found in batch]

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete those that exist."""
        async with _available(None):
            with suppress(FileNotFoundError):
                await obstore.delete_async(self.store, keys)


class FolderStorage(Storage):
    def __init__(self, folder: Path, urls: SignedUrls, timeout: float) -> None:
        super().__init__(timeout)
        self.folder = folder
        self.urls = urls

    def open_store(self) -> LocalStore:
        return LocalStore(self.folder, mkdir=True, automatic_cleanup=True)

    async def sign(self, key: str) -> str:
        return self.urls.sign(key)

    def path(self, key: str) -> Path:
        return self.folder / key

    async def stat(self, key: str) -> os.stat_result | None:
        async with _available(self.timeout):
            with suppress(FileNotFoundError):
                return await to_thread.run_sync(self.path(key).stat)
        return None

    async def tidy(self, before: datetime) -> None:
        """Delete temporary files of killed processes that are older than that time."""
        await asyncio.to_thread(self._tidy, before.timestamp())

    def _tidy(self, before: float) -> None:
        # LocalStore writes to `name#1`, then renames it.
        for folder, _, names in os.walk(self.folder, topdown=False):
            paths = [Path(folder, name) for name in names if "#" in name]
            for path in paths:
                with suppress(FileNotFoundError):  # it was renamed meanwhile
                    if path.stat().st_mtime < before:
                        path.unlink()
            if paths:
                with suppress(OSError):  # not empty
                    Path(folder).rmdir()


class BucketStorage(Storage):
    def __init__(self, files: FilesSettings) -> None:
        super().__init__(files.timeout)
        self.files = files

    def attributes(self, key: str) -> dict[str, str]:
        lifetime = f"private, max-age={self.files.url_ttl}"
        return {"Content-Type": content_type(key), "Cache-Control": lifetime}

    def open_store(self) -> S3Store:
        return _bucket(self.files, self.files.endpoint)

    @cached_property
    def _public(self) -> S3Store:
        return _bucket(self.files, self.files.public_endpoint or self.files.endpoint)

    async def sign(self, key: str) -> str:
        ttl = timedelta(seconds=self.files.url_ttl)
        async with _available(self.timeout):  # it may have to fetch credentials first
            return await obstore.sign_async(self._public, "GET", key, ttl)


@asynccontextmanager
async def _available(limit: float | None) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(limit):
            yield
    except (BaseError, OSError) as error:
        log.info("The file storage failed: %.300s", str(error) or repr(error))
        raise Unavailable("The file storage is not available right now") from error


def make_storage(files: FilesSettings, secrets: Iterable[str]) -> Storage | None:
    """None if FILES_URL is unset. `secrets` sign the URLs of files in a folder."""
    if files.folder is not None:
        urls = SignedUrls(files.url_ttl, secrets)
        return FolderStorage(files.folder / "objects", urls, files.timeout)
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
