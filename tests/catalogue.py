"""How tests speak to the catalogue: as an editor, over HTTP."""

import secrets
from dataclasses import dataclass
from typing import Any

import httpx2


@dataclass
class Catalogue:
    client: httpx2.AsyncClient
    token: str

    @property
    def editor(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def add_author(self, name: str = "Mary Shelley") -> int:
        answer = await self.client.post("/v1/authors", json={"name": name}, headers=self.editor)
        assert answer.status_code == 201, answer.text
        id: int = answer.json()["id"]
        return id

    async def add_book(self, title: str = "Frankenstein", **fields: Any) -> dict[str, Any]:
        if "author_ids" not in fields:
            fields["author_ids"] = [await self.add_author(f"Anonymous {secrets.token_hex(4)}")]
        body = {"title": title, **fields}
        answer = await self.client.post("/v1/books", json=body, headers=self.editor)
        assert answer.status_code == 201, answer.text
        book: dict[str, Any] = answer.json()
        return book

    async def change(self, path: str, **fields: Any) -> httpx2.Response:
        return await self.client.patch(path, json=fields, headers=self.editor)

    async def walk(self, path: str, **query: Any) -> list[dict[str, Any]]:
        """Every item of a list, page after page."""
        items: list[dict[str, Any]] = []
        after: dict[str, str] = {}
        while True:
            answer = await self.client.get(path, params={**query, **after})
            assert answer.status_code == 200, answer.text
            page = answer.json()
            items += page["items"]
            if page["next"] is None:
                return items
            after = {"after": page["next"]}
