import asyncio
import secrets
from collections.abc import AsyncIterable, Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Book, Cover
from app.sample.images import FORMATS, NotAnImage, Picture, UnusableImage, make_pictures
from app.schemas.cover import CoverImage, CoverRead, Size
from app.services.book_queries import no_book
from app.settings import settings_of
from chassis.database.transactions import retry_on_deadlock
from chassis.errors import Invalid, NotFound, Unavailable, UnsupportedMedia
from chassis.http.etag import etag
from chassis.http.preconditions import UNCONDITIONAL, Preconditions
from chassis.resources import Resources

TTL = 300  # s
FOLDER = "covers"


class CoverService:
    """Stores the files of a cover first; the commit then makes them the cover, all at once
    (docs/files.md).
    """

    def __init__(self, resources: Resources) -> None:
        if resources["storage"] is None:
            raise Unavailable("Set FILES_URL to have covers")
        self.storage = resources["storage"]
        self.sessions = resources["sessions"]
        self.cache = resources["cache"]
        self.uploads = resources["uploads"]
        self.processes = resources["processes"]
        self.settings = settings_of(resources).covers

    async def put(
        self,
        book_id: int,
        body: AsyncIterable[bytes],
        preconditions: Preconditions = UNCONDITIONAL,
    ) -> tuple[CoverRead, str]:
        """The cover and its ETag."""
        with self.processes.place():
            async with self.sessions.current() as session:
                # Before the image is read, and again before it replaces the other.
                preconditions.check(_etag(await _key_of(session, book_id)))
            pictures = await self._pictures(body)
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
        """A URL with a limited lifetime, and the ETag of the cover."""

        async def load() -> str:
            async with self.sessions.read() as session:
                key = await _key_of(session, book_id)
            if key is None:
                raise NotFound(f"Book {book_id} has no cover")
            return key

        tags = [f"book:{book_id}", f"cover:{book_id}"]
        key = await self.cache.get_or_load(f"cover:{book_id}", str, load, ttl=TTL, tags=tags)
        return await self.storage.sign(_name(key, size)), etag(key.encode())

    async def _pictures(self, body: AsyncIterable[bytes]) -> list[Picture]:
        async with self.uploads.receive(body) as path:
            try:
                max_pixels = self.settings.max_pixels
                return await self.processes.run(make_pictures, path, max_pixels)
            except NotAnImage:
                raise UnsupportedMedia("This is no JPEG, PNG or WebP image", FORMATS) from None
            except UnusableImage as error:
                raise Invalid(str(error), ("body",)) from None

    @retry_on_deadlock
    async def _swap(self, book_id: int, key: str, preconditions: Preconditions) -> None:
        async with self.sessions.write() as session:
            book = select(Book.id).where(Book.id == book_id).with_for_update()
            if await session.scalar(book) is None:
                raise no_book(book_id)
            preconditions.check(_etag(await _key_of(session, book_id)))
            await session.merge(Cover(book_id=book_id, key=key))
            async with self.cache.invalidating(f"cover:{book_id}"):
                await session.commit()


async def used_keys(session: AsyncSession, keys: Sequence[str]) -> Sequence[str]:
    return (await session.scalars(select(Cover.key).where(Cover.key.in_(keys)))).all()


async def _key_of(session: AsyncSession, book_id: int) -> str | None:
    """None without a cover; raises NotFound without a book."""
    wanted = select(Book.id, Cover.key).outerjoin(Cover).where(Book.id == book_id)
    found = (await session.execute(wanted)).first()
    if found is None:
        raise no_book(book_id)
    key: str | None = found.key
    return key


def _etag(key: str | None) -> str | None:
    return etag(key.encode()) if key else None


def _name(key: str, size: str) -> str:
    return f"{key}/{size}.webp"
