"""Records where a worker's CPU time goes under load, as a flame graph: var/profile.svg."""

import asyncio
import subprocess
import sys
from pathlib import Path

from benchmarks.client import Tally, request_all
from benchmarks.service import ROOT, Service, fill, one_worker
from chassis.development.private_servers import ServerUnavailable, embedded_valkey, private_mariadb

VAR = ROOT / "var"
FLAMES = VAR / "profile.svg"
SECONDS = 20
RATE = 100  # samples a second
PTRACE_SCOPE = Path("/proc/sys/kernel/yama/ptrace_scope")
# What clients request, more or less.
PATHS = [
    # sample: begin
    *(f"/v1/books/{book_id}" for book_id in range(1, 61)),
    *["/v1/books", "/v1/books?sort=-average_rating&language=eng", "/v1/books?q=love"] * 10,
    *["/v1/authors", "/v1/rankings/books"] * 4,
    # sample: end
    *["/health/ready"] * 4,
]


def main() -> None:
    folder = VAR / "benchmarks"
    try:
        with (
            embedded_valkey(folder / "valkey") as valkey,
            private_mariadb(folder / "mariadb", VAR, say=print) as mariadb,
        ):
            asyncio.run(fill(mariadb.url))
            with one_worker(DATABASE_URL=mariadb.url, REDIS_URL=valkey.url) as service:
                tally = asyncio.run(record(service))
    except ServerUnavailable as error:
        raise SystemExit(str(error)) from None
    print(f"{tally.responses.total()} requests, with the responses {dict(tally.responses)}")
    print(f"Open {FLAMES} in a browser; docs/profiling.md says how to read it")


async def record(service: Service) -> Tally:
    """Ask as long as py-spy records."""
    tally = Tally()
    await request_all(service.url, PATHS, 10 * len(PATHS))  # what happens once is not of interest
    profiler = await asyncio.create_subprocess_exec(
        "py-spy",
        *("record", "--pid", str(service.worker), "--output", str(FLAMES.relative_to(ROOT))),
        *("--duration", str(SECONDS), "--rate", str(RATE)),
        *("--gil", "--function"),  # what runs, not what waits; a line for each function
        executable=str(Path(sys.executable).with_name("py-spy")),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    recording = asyncio.create_task(profiler.communicate())
    while not recording.done():
        await request_all(service.url, PATHS, len(PATHS), tally=tally)
    output, _ = await recording
    if profiler.returncode != 0:
        raise SystemExit(f"py-spy failed:\n{output.decode()}{_hint()}")
    return tally


def _hint() -> str:
    if PTRACE_SCOPE.exists() and PTRACE_SCOPE.read_text().strip() != "0":
        return "It may watch other processes after: sudo sysctl kernel.yama.ptrace_scope=0"
    return "It needs the right to trace processes: root, or in a container CAP_SYS_PTRACE"


if __name__ == "__main__":
    main()
