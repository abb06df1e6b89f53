"""How tests of the engine speak to their own resource (tests/purchases)."""

from typing import Any
from uuid import uuid4

from tests.editor import Editor


def purchase(**fields: Any) -> dict[str, Any]:
    """A body: what is left out is an ordinary value, with a number of its own."""
    usual = {"number": str(uuid4()), "total": "9.90", "placed_at": "2026-03-01T09:30:00Z"}
    return usual | fields


class Shop(Editor):
    async def add_payer(self, name: str = "Mary Shelley") -> int:
        id: int = (await self.add("/v1/payers", {"name": name}))["id"]
        return id

    async def add_purchase(self, note: str = "First", **fields: Any) -> dict[str, Any]:
        return await self.add("/v1/purchases", purchase(note=note, **fields))
