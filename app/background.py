"""Work that goes on beside the requests, as long as a block runs."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

BEAT = 5  # s
CANCEL_AGAIN = 0.5  # s; more than work needs to tidy up


@asynccontextmanager
async def background(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        await end(task)
        if not task.cancelled():
            task.result()


@asynccontextmanager
async def alongside(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """The same for work without which the block makes no sense: if one fails, so does the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in works]
        yield
        for task in tasks:
            await end(task)


async def end(task: asyncio.Future[Any]) -> None:
    """Cancel it until it is heard: redis-py loses one cancellation of a hundred while it waits."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_AGAIN)


async def beat(file: Path | None) -> None:
    """Touch a file again and again: a health check sees by its age that the event loop runs."""
    while file is not None:
        await anyio.Path(file).touch()
        await asyncio.sleep(BEAT)
