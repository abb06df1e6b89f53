import asyncio
import secrets
from collections.abc import AsyncIterable, Sequence
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.database.transactions import retry_on_deadlock
from chassis.errors import NotFound, Unavailable
from chassis.http.etag import etag
from chassis.http.preconditions import UNCONDITIONAL, Preconditions
from chassis.resources import Resources
from tests.purchases.model import Purchase
from tests.purchases.schema import ReceiptRead
from tests.purchases.service import no_purchase

FOLDER = "receipts"
KINDS = ("application/pdf",)
MAX_RECEIPT = 2_000_000  # bytes


class ReceiptService:
    """A file of a purchase: stored first; the commit then makes it the receipt (docs/files.md)."""

    def __init__(self, resources: Resources) -> None:
        if resources["storage"] is None:
            raise Unavailable("Set FILES_URL to have receipts")
        self.storage = resources["storage"]
        self.sessions = resources["sessions"]
        self.cache = resources["cache"]
        self.uploads = resources["uploads"]

    async def put(
        self,
        purchase_id: int,
        body: AsyncIterable[bytes],
        preconditions: Preconditions = UNCONDITIONAL,
    ) -> tuple[ReceiptRead, str]:
        """The receipt and its ETag."""
        async with self.sessions.current() as session:
            # Before the body is read, and again before it replaces the other.
            preconditions.check(_etag(await _key_of(session, purchase_id)))
        async with self.uploads.receive(body) as path:
            content = await asyncio.to_thread(Path(path).read_bytes)
        key = f"{FOLDER}/{purchase_id}/{secrets.token_hex(16)}"
        await self.storage.put(_name(key), content)
        await self._swap(purchase_id, key, preconditions)
        return ReceiptRead(bytes=len(content)), etag(key.encode())

    async def url(self, purchase_id: int) -> tuple[str, str]:
        """A URL with a limited lifetime, and the ETag of the receipt."""

        async def load() -> str:
            async with self.sessions.read() as session:
                key = await _key_of(session, purchase_id)
            if key is None:
                raise NotFound(f"Purchase {purchase_id} has no receipt")
            return key

        name = f"receipt:{purchase_id}"
        tags = [f"purchase:{purchase_id}", name]
        key = await self.cache.get_or_load(name, str, load, ttl=300, tags=tags)
        return await self.storage.sign(_name(key)), etag(key.encode())

    @retry_on_deadlock
    async def _swap(self, purchase_id: int, key: str, preconditions: Preconditions) -> None:
        async with self.sessions.write() as session:
            purchase = await session.get(Purchase, purchase_id, with_for_update=True)
            if purchase is None:
                raise no_purchase(purchase_id)
            preconditions.check(_etag(purchase.receipt))
            purchase.receipt = key
            async with self.cache.invalidating(f"receipt:{purchase_id}"):
                await session.commit()


async def used_keys(session: AsyncSession, keys: Sequence[str]) -> Sequence[str]:
    found = await session.scalars(select(Purchase.receipt).where(Purchase.receipt.in_(keys)))
    return [key for key in found if key is not None]


async def _key_of(session: AsyncSession, purchase_id: int) -> str | None:
    """None without a receipt; raises NotFound without a purchase."""
    wanted = select(Purchase.id, Purchase.receipt).where(Purchase.id == purchase_id)
    found = (await session.execute(wanted)).first()
    if found is None:
        raise no_purchase(purchase_id)
    key: str | None = found.receipt
    return key


def _etag(key: str | None) -> str | None:
    return etag(key.encode()) if key else None


def _name(key: str) -> str:
    return f"{key}/receipt.pdf"
