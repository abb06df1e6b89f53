"""How tests speak to the service: as an editor, over HTTP."""

from dataclasses import dataclass
from typing import Any

import httpx2 as httpx


@dataclass
class Editor:
    client: httpx.AsyncClient
    token: str

    @property
    def editor(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def add(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        response = await self.client.post(path, json=body, headers=self.editor)
        assert response.status_code == 201, response.text
        made: dict[str, Any] = response.json()
        return made

    async def change(self, path: str, **fields: Any) -> httpx.Response:
        return await self.client.patch(path, json=fields, headers=self.editor)

    async def walk(self, path: str, **query: Any) -> list[dict[str, Any]]:
        """Every item of a list, page after page."""
        items: list[dict[str, Any]] = []
        after: dict[str, str] = {}
        while True:
            response = await self.client.get(path, params={**query, **after})
            assert response.status_code == 200, response.text
            page = response.json()
            items += page["items"]
            if page["next"] is None:
                return items
            after = {"after": page["next"]}
