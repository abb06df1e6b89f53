import asyncio
import secrets
from collections.abc import AsyncIterable
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.cache import Cache
from app.database import Sessions
from app.errors import Invalid, NotFound, UnsupportedMedia
from app.etag import etag
from app.images import FORMATS, NotAnImage, Picture, UnusableImage, make_pictures
from app.models import Book, Cover, Orphan
from app.models.base import now
from app.process_pool import Place, ProcessPool
from app.schemas.cover import CoverImage, CoverRead, Size
from app.services.preconditions import UNCONDITIONAL, Preconditions
from app.services.transactions import transaction
from app.settings import CoversSettings
from app.storage import FolderStorage, Storage
from app.uploads import Uploads

TTL = 300  # s
FOLDER = "covers"


class CoverService:
    """The files of a cover are stored first; the commit makes them, all at once, the cover."""

    def __init__(
        self,
        sessions: Sessions,
        cache: Cache,
        storage: Storage,
        uploads: Uploads,
        processes: ProcessPool,
        settings: CoversSettings,
    ) -> None:
        self.sessions = sessions
        self.cache = cache
        self.storage = storage
        self.uploads = uploads
        self.processes = processes
        self.settings = settings

    async def put(
        self,
        book_id: int,
        body: AsyncIterable[bytes],
        preconditions: Preconditions = UNCONDITIONAL,
    ) -> tuple[CoverRead, str]:
        """What is kept, and its ETag."""
        with self.processes.place() as place:
            async with self.sessions.current() as session:
                # Before the image is read, and once more when it takes the place of the other.
                preconditions.check(_etag(await _key_of(session, book_id)))
            pictures = await self._pictures(place, body)
            key = f"{FOLDER}/{book_id}/{secrets.token_hex(16)}"
            puts = (self.storage.put(_name(key, p.size), p.webp) for p in pictures)
            for failed in filter(None, await asyncio.gather(*puts, return_exceptions=True)):
                raise failed
        await self._swap(book_id, key, preconditions)
        images = [
            CoverImage(size=p.size, width=p.width, height=p.height, bytes=len(p.webp))
            for p in pictures
        ]
        return CoverRead(book_id=book_id, images=images), etag(key.encode())

    async def url(self, book_id: int, size: Size) -> tuple[str, str]:
        """Where it is for a while, and the ETag of the cover."""

        async def load() -> str:
            async with self.sessions.read() as session:
                key = await _key_of(session, book_id)
            if key is None:
                raise NotFound(f"Book {book_id} has no cover")
            return key

        tags = [f"book:{book_id}", f"cover:{book_id}"]
        key = await self.cache.get_or_load(f"cover:{book_id}", str, load, ttl=TTL, tags=tags)
        return await self.storage.sign(_name(key, size)), etag(key.encode())

    async def _pictures(self, place: Place, body: AsyncIterable[bytes]) -> list[Picture]:
        async with self.uploads.receive(body) as path:
            try:
                return await place.run(make_pictures, str(path), self.settings.max_pixels)
            except NotAnImage:
                raise UnsupportedMedia("This is no JPEG, PNG or WebP image", FORMATS) from None
            except UnusableImage as error:
                raise Invalid(str(error), ("body",)) from None

    @transaction
    async def _swap(self, book_id: int, key: str, preconditions: Preconditions) -> None:
        async with self.sessions.write() as session:
            book = select(Book.id).where(Book.id == book_id).with_for_update()
            if await session.scalar(book) is None:
                raise _no_book(book_id)
            preconditions.check(_etag(await _key_of(session, book_id)))
            await session.merge(Cover(book_id=book_id, key=key))
            async with self.cache.invalidating(f"cover:{book_id}"):
                await session.commit()


async def sweep_covers(sessions: Sessions, storage: Storage, orphaned: timedelta) -> None:
    """Delete the files of covers that were replaced, or never came to be one.

    `orphaned`: how long after a sweep has first seen that.
    """
    before = now() - orphaned
    async for names in storage.batches(FOLDER):
        files: dict[str, list[str]] = {}
        for name in names:
            files.setdefault(name.rpartition("/")[0], []).append(name)
        if old := await _orphans(sessions, [*files], before):
            await storage.delete([name for key in old for name in files[key]])
            await _forget(sessions, old)
    if isinstance(storage, FolderStorage):
        await storage.tidy(before)


@transaction
async def _orphans(sessions: Sessions, keys: list[str], before: datetime) -> list[str]:
    """Those that were there before; others are there from now on."""
    async with sessions.write() as session:
        used = {*await session.scalars(select(Cover.key).where(Cover.key.in_(keys)))}
        # One may have been on its way when it was seen.
        await session.execute(delete(Orphan).where(Orphan.key.in_(used)))
        orphans = {*keys} - used
        seen = await session.scalars(select(Orphan).where(Orphan.key.in_(orphans)))
        times = {orphan.key: orphan.seen_at for orphan in seen}
        session.add_all(Orphan(key=key) for key in orphans - times.keys())
        await session.commit()
    return [key for key, seen_at in times.items() if seen_at < before]


@transaction
async def _forget(sessions: Sessions, keys: list[str]) -> None:
    async with sessions.write() as session:
        await session.execute(delete(Orphan).where(Orphan.key.in_(keys)))
        await session.commit()


async def _key_of(session: AsyncSession, book_id: int) -> str | None:
    """The key of the cover of a book, if it has one; raises NotFound where there is no book."""
    wanted = select(Book.id, Cover.key).outerjoin(Cover).where(Book.id == book_id)
    found = (await session.execute(wanted)).first()
    if found is None:
        raise _no_book(book_id)
    key: str | None = found.key
    return key


def _etag(key: str | None) -> str | None:
    return etag(key.encode()) if key else None


def _name(key: str, size: str) -> str:
    return f"{key}/{size}.webp"


def _no_book(book_id: int) -> NotFound:
    return NotFound(f"Book {book_id} does not exist")
