"""Background tasks that run as long as a block does."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from contextvars import Context
from pathlib import Path
from typing import Any, Protocol, TypeVar

import anyio

HEARTBEAT_INTERVAL = 5  # s
CANCEL_AGAIN = 0.5  # s; longer than a task needs to clean up


class Closable(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=Closable)


@asynccontextmanager
async def background(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        await cancel_and_wait(task)
        if not task.cancelled():
            task.result()


@asynccontextmanager
async def run_alongside(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """As `background`, but an error of one of `works` also cancels the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in works]
        yield
        for task in tasks:
            await cancel_and_wait(task)


@asynccontextmanager
async def closing(resource: C) -> AsyncIterator[C]:
    """As `contextlib.closing`, with a `close` that blocks."""
    try:
        yield resource
    finally:
        await asyncio.to_thread(resource.close)


async def cancel_and_wait(task: asyncio.Future[Any]) -> None:
    """Repeat the cancellation until it works: redis-py swallows about one in a hundred."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_AGAIN)


async def touch_heartbeat(file: Path | None) -> None:
    """Touch `file` periodically: a health check sees by its age that the event loop runs."""
    while file is not None:
        await anyio.Path(file).touch()
        await asyncio.sleep(HEARTBEAT_INTERVAL)


def spawn(
    tasks: "set[asyncio.Task[None]]",
    work: Coroutine[Any, Any, None],
    context: Context | None = None,
) -> "asyncio.Task[None]":
    """Start a task; `tasks` holds a reference until it is done, as asyncio itself does not."""
    task = asyncio.create_task(work, context=context)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task
