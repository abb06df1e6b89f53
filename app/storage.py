"""Files that outlive a process: in an S3-compatible store, or in a folder."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import obstore
from anyio import to_thread
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from app.errors import Unavailable
from app.settings import FilesSettings, Settings
from app.signed_urls import SignedUrls

BATCH = 1000  # names of one question, which is what S3 gives at once
RETRIES = 2

log = logging.getLogger("app.storage")


class Stored(NamedTuple):
    key: str
    modified: datetime


class Storage:
    """Each file is whole or not there, and never changes: what is new has a new key."""

    def __init__(
        self, open: Callable[[], Any], sign: Callable[[str], str], attributes: dict[str, str]
    ) -> None:
        """`open`: gives obstore's store, when it is first used."""
        self.sign = sign  # a URL for a while
        self._open = open
        self._attributes = attributes

    @cached_property
    def _store(self) -> Any:
        return self._open()

    async def put(self, key: str, content: bytes) -> None:
        with _reached():
            await obstore.put_async(
                self._store, key, content, attributes=self._attributes or None, use_multipart=False
            )

    async def batches(self, prefix: str) -> AsyncIterator[list[Stored]]:
        """All below `prefix`."""
        with _reached():
            async for batch in obstore.list(self._store, prefix, chunk_size=BATCH):
                yield [Stored(found["path"], found["last_modified"]) for found in batch]

    async def delete(self, keys: Sequence[str]) -> None:
        """What is not there any more is no error."""
        with _reached(), suppress(FileNotFoundError):
            await obstore.delete_async(self._store, keys)

    async def tidy(self, before: datetime) -> None:
        """Delete what was begun before that time and never became a file."""


class FolderStorage(Storage):
    def __init__(self, folder: Path, sign: Callable[[str], str]) -> None:
        super().__init__(partial(LocalStore, folder, mkdir=True, automatic_cleanup=True), sign, {})
        self.folder = folder

    def path(self, key: str) -> Path:
        return self.folder / key

    async def tidy(self, before: datetime) -> None:
        await to_thread.run_sync(self._tidy, before.timestamp())

    def _tidy(self, before: float) -> None:
        # LocalStore writes to `name#1`, then renames it; what a killed process left stays.
        for path in self.folder.rglob("*#*"):
            if path.stat().st_mtime < before:
                path.unlink(missing_ok=True)


@contextmanager
def _reached() -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:
        log.info("The file store failed: %s", str(error).splitlines()[0])
        raise Unavailable("The file store does not answer right now") from error


def make_storage(settings: Settings) -> Storage | None:
    """None where FILES_URL is not set."""
    files = settings.files
    if files.folder is not None:
        return FolderStorage(files.folder / "objects", SignedUrls(settings).sign)
    if files.url is None:
        return None
    ttl = timedelta(seconds=files.url_ttl)
    public = _bucket(files, files.public_endpoint or files.endpoint)
    attributes = {
        "Content-Type": "image/webp",
        "Cache-Control": f"private, max-age={files.url_ttl}",
    }
    return Storage(
        partial(_bucket, files, files.endpoint),
        lambda key: obstore.sign(public, "GET", key, ttl),
        attributes,
    )


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
