"""Work beside the requests ends with the block that it belongs to."""

import asyncio
from contextlib import suppress

import pytest

from chassis.tasks.background import background, run_alongside


async def deaf(ended: asyncio.Event) -> None:
    """Loses the first cancellation, as some clients do."""
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    try:
        await asyncio.Event().wait()
    finally:
        ended.set()


async def fail() -> None:
    raise LookupError("It has failed")


@pytest.mark.parametrize("kind", [lambda work: background(work, "deaf"), run_alongside])
async def test_work_that_does_not_hear_ends_all_the_same(kind):
    ended = asyncio.Event()
    async with asyncio.timeout(10), kind(deaf(ended)):
        await asyncio.sleep(0)

    assert ended.is_set()


async def test_work_that_has_failed_says_so_at_the_end():
    with pytest.raises(LookupError):
        async with background(fail(), "fails"):
            await asyncio.sleep(0)
