"""How tests speak to the catalogue."""

import secrets
from typing import Any

from tests.editor import Editor


class Catalogue(Editor):
    async def add_author(self, name: str = "Mary Shelley") -> int:
        id: int = (await self.add("/v1/authors", {"name": name}))["id"]
        return id

    async def add_book(self, title: str = "Frankenstein", **fields: Any) -> dict[str, Any]:
        if "author_ids" not in fields:
            fields["author_ids"] = [await self.add_author(f"Anonymous {secrets.token_hex(4)}")]
        return await self.add("/v1/books", {"title": title, **fields})
