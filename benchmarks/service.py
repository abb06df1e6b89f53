"""The service as production runs it, with one worker, and what that worker costs. Linux only."""

import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from tempfile import TemporaryDirectory

from app.sample.catalogue import import_catalogue  # sample
from chassis.database.engines import create_engine
from chassis.database.settings import DatabaseSettings
from chassis.development.server_process import end_with_us
from chassis.migrations import schema

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "data" / "classics.csv"  # sample
START_TIMEOUT = 30  # s
STARTED = b"Application startup complete"
TICKS = os.sysconf("SC_CLK_TCK")
# Counted, and never refused: what is measured is the cost of an answer.
NO_REFUSALS = {
    f"LIMITS_{name}_{part}": "1000000"
    for name in ("READS", "ADDRESS", "STORES")
    for part in ("RATE", "BURST")
}


@dataclass
class Service:
    url: str
    master: int

    @property
    def workers(self) -> list[int]:
        """What Gunicorn has forked; uvicorn alone is its own worker."""
        children = Path(f"/proc/{self.master}/task/{self.master}/children").read_text()
        return [int(child) for child in children.split()] or [self.master]

    @property
    def worker(self) -> int:
        return self.workers[0]

    def cpu_time(self) -> float:
        """User and system time of the workers so far, s."""
        return sum(map(cpu_time_of, self.workers))

    def private_memory(self) -> float:
        """Of the workers: what they share with no other process, MiB."""
        return sum(map(private_memory_of, self.workers)) / 1024

    def memory(self) -> float:
        """Of all its processes, what they share counted once, MiB."""
        return sum(memory_of(process) for process in _tree(self.master)) / 1024


def cpu_time_of(process: int) -> float:
    """User and system time so far, s."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _tree(process: int) -> list[int]:
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [process, *(each for child in children for each in _tree(int(child)))]


def _memory(process: int, kind: str) -> list[int]:
    """Of that kind, KiB."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return [int(line.split()[1]) for line in lines if line.startswith(kind)]


def private_memory_of(process: int) -> int:
    """What it shares with no other process, KiB."""
    return sum(_memory(process, "Private_"))


def memory_of(process: int) -> int:
    """Its proportional set size, KiB."""
    return _memory(process, "Pss:")[0]


async def fill(url: str, catalogue: Path | None = None) -> None:
    """Bring the database up to the schema, with the sample data or another catalogue."""
    settings = DatabaseSettings(url=url)
    engine = create_engine(settings, "maintenance")
    await schema.migrate(engine)
    await engine.dispose()
    await import_catalogue(settings, catalogue or SAMPLE, lambda done, total: None)  # sample


@contextmanager
def one_worker(*options: str, **variables: str) -> Iterator[Service]:
    """Our Gunicorn configuration with one worker that stays.

    `options`: further ones of Gunicorn, and another application.
    """
    defaults = {
        "REDIS_URL": "redis://127.0.0.1",
        "LOG_FORMAT": "json",
        "TOKENS_KEY": secrets.token_urlsafe(32),
        "WEB_CONCURRENCY": "1",
        "WEB_MAX_REQUESTS": "0",
        **NO_REFUSALS,
    }
    with TemporaryDirectory() as folder:
        defaults["DATABASE_URL"] = f"sqlite+aiosqlite:///{folder}/service.db"
        variables = defaults | variables
        command = ["gunicorn", "--config", "gunicorn_config.py", *options]
        with _running(command, variables, workers=int(variables["WEB_CONCURRENCY"])) as service:
            yield service


@contextmanager
def under_gunicorn(app: str, **variables: str) -> Iterator[Service]:
    """One worker as uvicorn-worker has it."""
    command = ["gunicorn", "--worker-class", "uvicorn_worker.UvicornWorker", "--workers", "1"]
    with _running([*command, "--bind", "127.0.0.1:{port}", app], variables) as service:
        yield service


@contextmanager
def under_uvicorn(app: str, *options: str, **variables: str) -> Iterator[Service]:
    command = ["uvicorn", "--host", "127.0.0.1", "--port", "{port}", *options, app]
    with _running(command, variables) as service:
        yield service


@contextmanager
def _running(
    command: Sequence[str], variables: dict[str, str], workers: int = 1
) -> Iterator[Service]:
    """`command`: a module with its arguments; `{port}` is a free one, as is PORT."""
    with TemporaryDirectory() as folder, Path(folder, "log").open("w+b") as log:
        port = _free_port()
        arguments = [argument.replace("{port}", str(port)) for argument in command]
        master = Popen(
            [*end_with_us(), sys.executable, "-m", *arguments],
            cwd=ROOT,
            env=os.environ | {"PORT": str(port)} | variables,
            stdout=log,
            stderr=log,
        )
        try:
            _wait_for(master, Path(log.name), workers)
            yield Service(f"http://127.0.0.1:{port}", master.pid)
        finally:
            master.terminate()
            master.wait()


def _wait_for(master: "Popen[bytes]", log: Path, workers: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while log.read_bytes().count(STARTED) < workers:
        if master.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"The service does not start:\n{log.read_text()}")
        time.sleep(0.05)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
