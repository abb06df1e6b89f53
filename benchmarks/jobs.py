"""How soon a job is begun after its commit, how many are done in a second, and what a worker takes.

One worker process with the jobs of the service, on a private MariaDB. Linux only.
"""

import asyncio
import multiprocessing
import os
import random
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from app.jobs import REGISTRY
from app.settings import Settings
from benchmarks.service import ROOT, memory_of
from chassis.database.engines import create_engine
from chassis.development.private_servers import embedded_valkey, private_mariadb
from chassis.job_worker.registry import Handler, JobContext
from chassis.job_worker.run import work
from chassis.jobs.job import Job
from chassis.migrations import schema
from chassis.resources import Resources, open_resources

SINGLE = 300
POLLED = 20
BURST = 1_000
BUDGET = 50  # ms; from the commit of a job to its beginning, in 99 of 100 cases


class Probe(Job):
    name = "probe"

    number: int


def main() -> None:
    with (
        TemporaryDirectory() as folder,
        embedded_valkey(Path(folder, "valkey")) as valkey,
        private_mariadb(Path(folder, "mariadb"), ROOT / "var", say=print) as mariadb,
    ):
        os.environ |= {
            "DATABASE_URL": mariadb.url,
            "REDIS_URL": valkey.url,
            "MAIL_URL": f"file://{folder}/mail",
            "LOG_LEVEL": "WARNING",
        }
        receiving, sending = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("spawn").Process(target=run_worker, args=(sending,))
        process.start()
        assert process.pid is not None
        try:
            is_within = uvloop.run(measure(receiving, process.pid))
            valkey.stop()
            uvloop.run(measure_without_valkey(receiving))
        finally:
            process.terminate()
            process.join()
    raise SystemExit(not is_within)


def run_worker(sending: Connection) -> None:
    async def begin(context: JobContext, job: Probe, key: str) -> None:
        sending.send((job.number, time.monotonic()))

    handlers: dict[type[Job], Handler] = {**REGISTRY.handlers, Probe: begin}
    uvloop.run(work(Settings(), REGISTRY._replace(handlers=handlers)))


async def measure(receiving: Connection, worker: int) -> bool:
    settings = Settings()
    engine = create_engine(settings.database, "maintenance")
    await schema.migrate(engine)
    await engine.dispose()
    async with open_resources(settings) as resources:
        await latencies(resources, receiving, 20)  # once the worker has started
        single = await latencies(resources, receiving, SINGLE)
        idle = memory_of(worker) / 1024
        rate = await burst(resources, receiving)
        after = memory_of(worker) / 1024
    p99 = statistics.quantiles(single, n=100)[98]
    print(f"From a commit to the beginning of its job, {SINGLE} one at a time, ms:")
    print(f"  {statistics.median(single):.1f} median, {p99:.1f} p99 (budget {BUDGET})")
    print(f"Done of {BURST} at once: {rate:.0f} a second")
    print(f"Memory of the worker, MiB: {idle:.0f}, and {after:.0f} after that")
    return p99 <= BUDGET


async def measure_without_valkey(receiving: Connection) -> None:
    async with open_resources(Settings()) as resources:
        polled = await latencies(resources, receiving, POLLED)
    print(f"Without Valkey, {POLLED} one at a time, ms:")
    print(f"  {statistics.median(polled):.0f} median, {max(polled):.0f} at most")


async def latencies(resources: Resources, receiving: Connection, count: int) -> list[float]:
    """In ms."""
    spent = []
    for number in range(count):
        await asyncio.sleep(random.uniform(0.005, 0.05))  # noqa: S311
        async with resources["sessions"].write() as session:
            await resources["outbox"].write(session, Probe(number=number), f"{time.monotonic()}")
            await session.commit()
        committed = time.monotonic()
        done, begun = await asyncio.to_thread(receiving.recv)
        assert done == number
        spent.append((begun - committed) * 1000)
    return spent


async def burst(resources: Resources, receiving: Connection) -> float:
    async with resources["sessions"].write() as session:
        for number in range(BURST):
            await resources["outbox"].write(session, Probe(number=number), f"burst-{number}")
        await session.commit()
    start = time.monotonic()

    def receive() -> set[int]:
        return {receiving.recv()[0] for _ in range(BURST)}

    assert len(await asyncio.to_thread(receive)) == BURST
    return BURST / (time.monotonic() - start)


if __name__ == "__main__":
    main()
