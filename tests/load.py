"""Clients that keep asking over kept-alive connections and count what went wrong."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx2 as httpx


@dataclass
class Load:
    responses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)  # bodies of the first responses from 500 on
    refused: int = 0
    stopping: bool = False

    async def until(self, count: int) -> None:
        """Until that many more requests were answered."""
        goal = self.responses.total() + count
        async with asyncio.timeout(60):
            while self.responses.total() < goal:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def load(
    url: str,
    path: str,
    clients: int = 16,
    keep_alive: bool = True,
    headers: dict[str, str] | None = None,
    verify: bool = True,
) -> AsyncIterator[Load]:
    """A refused connection is counted apart: such a request never reached the service."""
    result = Load()

    async def ask() -> None:
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=int(keep_alive))
        async with httpx.AsyncClient(
            base_url=url, limits=limits, timeout=20, headers=headers, verify=verify
        ) as client:
            while not result.stopping:
                try:
                    response = await client.get(path)
                    result.responses[response.status_code] += 1
                    if response.is_server_error and len(result.errors) < 10:
                        result.errors.append(response.text)
                except httpx.ConnectError:
                    result.refused += 1
                    await asyncio.sleep(0.02)
                except httpx.TransportError as error:
                    result.failures.append(repr(error))

    tasks = [asyncio.create_task(ask()) for _ in range(clients)]
    try:
        yield result
    finally:
        result.stopping = True
        await asyncio.gather(*tasks)
