"""Work in processes of its own ends in time, and harms nobody when it does not."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chassis.errors import Overloaded, Unavailable
from chassis.processes.pool import ProcessPool
from chassis.processes.settings import ProcessesSettings
from chassis.request_context import RequestContext, current_request
from chassis.tasks.background import closing
from chassis.telemetry.metrics import Metrics
from tests.process import children, wait_until
from tests.work import fail, hang, pid, take


@pytest.fixture
def processes() -> ProcessesSettings:
    return ProcessesSettings(count=1, max_waiting=3, timeout=60)


@pytest.fixture
async def pool(processes: ProcessesSettings) -> AsyncIterator[ProcessPool]:
    async with closing(ProcessPool(processes, Metrics())) as pool:
        yield pool


def is_running(process: int) -> bool:
    return process in children(os.getpid())


def results(pool: ProcessPool) -> dict[str, float]:
    return {
        result: sample.value
        for result, child in pool.metrics.pool_duration.items()
        for metric in child.collect()
        for sample in metric.samples
        if sample.name.endswith("_count") and sample.value
    }


async def process_of(pool: ProcessPool) -> int:
    with pool.place():
        return await pool.run(pid)


async def begin_to_hang(pool: ProcessPool, file: Path) -> tuple["asyncio.Task[None]", int]:
    """With the number of the process that hangs."""

    async def work() -> None:
        with pool.place():
            await pool.run(hang, str(file))

    task = asyncio.create_task(work())
    await wait_until(lambda: file.exists() and bool(file.read_text()), "work")
    return task, int(file.read_text())


async def test_process_starts_when_it_is_needed_and_is_kept(pool: ProcessPool):
    before = children(os.getpid())
    first = await process_of(pool)
    again = await process_of(pool)

    assert first == again
    assert first not in before
    assert os.sched_getscheduler(first) == os.SCHED_IDLE


async def test_error_of_the_work_is_raised_and_its_process_goes_on(pool: ProcessPool):
    process = await process_of(pool)
    with pool.place(), pytest.raises(ValueError, match="It cannot be done"):
        await pool.run(fail)

    assert await process_of(pool) == process
    assert results(pool) == {"done": 2, "failed": 1}


async def test_killed_process_fails_one_piece_of_work(pool: ProcessPool, tmp_path: Path):
    task, process = await begin_to_hang(pool, tmp_path / "pid")
    waiting = asyncio.create_task(process_of(pool))
    os.kill(process, signal.SIGKILL)

    with pytest.raises(Unavailable):
        await task
    assert await waiting != process
    assert results(pool) == {"crashed": 1, "done": 1}


async def test_process_that_was_killed_while_idle_fails_nothing(pool: ProcessPool):
    process = await process_of(pool)
    os.kill(process, signal.SIGKILL)
    await wait_until(lambda: not is_running(process), "its end")

    assert await process_of(pool) != process
    assert results(pool) == {"done": 2}


async def test_work_that_takes_too_long_is_ended(pool: ProcessPool, tmp_path: Path):
    process = await process_of(pool)  # to start it takes a while
    pool.settings.timeout = 2
    task, hanging = await begin_to_hang(pool, tmp_path / "pid")
    with pytest.raises(Unavailable):
        await task
    await wait_until(lambda: not is_running(hanging), "its end")

    pool.settings.timeout = 60
    assert hanging == process
    assert await process_of(pool) != process
    assert results(pool) == {"done": 2, "timeout": 1}


async def test_work_that_nobody_waits_for_is_ended(pool: ProcessPool, tmp_path: Path):
    task, process = await begin_to_hang(pool, tmp_path / "pid")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await wait_until(lambda: not is_running(process), "its end")

    assert await process_of(pool) != process


async def test_those_who_find_no_place_are_refused_at_once(pool: ProcessPool):
    with pool.place(), pool.place(), pool.place(), pytest.raises(Overloaded), pool.place():
        pass

    assert results(pool) == {"refused": 1}
    assert await process_of(pool)


async def test_who_would_wait_too_long_is_refused(pool: ProcessPool, tmp_path: Path):
    with pool.place():
        await pool.run(time.sleep, 0.5)
    pool.settings.max_wait = 0.01
    with pool.place(), pytest.raises(Overloaded), pool.place():
        pass

    assert await process_of(pool)  # nobody waits, so nobody is refused


async def test_who_has_waited_until_too_little_time_is_left_is_refused(pool: ProcessPool):
    process = await process_of(pool)
    with pool.place():
        await pool.run(time.sleep, 2)  # so it usually takes some 0.4 s
    request = RequestContext("id", None, {}, deadline=time.perf_counter() + 0.05)
    first = asyncio.create_task(process_of(pool))
    await asyncio.sleep(0)
    current_request.set(request)
    with pytest.raises(Overloaded):
        await process_of(pool)

    assert await first == process  # and no process was ended
    assert await process_of(pool) == process  # who need not wait is let try, however late
    assert results(pool) == {"done": 4, "refused": 1}


async def test_work_has_only_so_much_memory(pool: ProcessPool):
    with pool.place(), pytest.raises(MemoryError):
        await pool.run(take, 2048)

    with pool.place():
        assert await pool.run(take, 64) == 64 << 20


async def test_no_process_is_left_behind(processes: ProcessesSettings):
    async with closing(ProcessPool(processes, Metrics())) as pool:
        process = await process_of(pool)

    assert not is_running(process)
