"""The service as production runs it, with one worker, and what that worker costs. Linux only."""

import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from tempfile import TemporaryDirectory

from app import schema
from app.catalogue import import_catalogue
from app.database import create_engine
from app.servers.process import end_with_us
from app.settings import DatabaseSettings
from app.worker import Worker

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "data" / "classics.csv"
START_TIMEOUT = 30  # s


class PlainWorker(Worker):
    """What others are measured with: uvicorn as it comes."""

    CONFIG_KWARGS = Worker.CONFIG_KWARGS | {"http": "httptools"}


@dataclass
class Service:
    url: str
    master: int

    @property
    def worker(self) -> int:
        children = Path(f"/proc/{self.master}/task/{self.master}/children").read_text()
        return int(children.split()[0])

    def cpu_time(self) -> float:
        """User and system time of the worker so far, s."""
        fields = Path(f"/proc/{self.worker}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """Of all its processes, what they share counted once, MiB."""
        return sum(_memory(process) for process in _tree(self.master)) / 1024


def _tree(process: int) -> list[int]:
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [process, *(each for child in children for each in _tree(int(child)))]


def _memory(process: int) -> int:
    """Its proportional set size, KiB."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


async def fill(url: str) -> None:
    """Bring the database up to the schema, with the sample catalogue."""
    settings = DatabaseSettings(url=url)
    engine = create_engine(settings, "maintenance")
    await schema.migrate(engine)
    await engine.dispose()
    await import_catalogue(settings, SAMPLE, lambda done, total: None)


@contextmanager
def one_worker(app: str | None = None, **variables: str) -> Iterator[Service]:
    """Our Gunicorn configuration with one worker that stays, for our application or another."""
    with TemporaryDirectory() as folder, Path(folder, "log").open("w+b") as log:
        port = _free_port()
        environment = {
            "DATABASE_URL": f"sqlite+aiosqlite:///{folder}/books.db",
            "REDIS_URL": "redis://127.0.0.1",
            "LOG_FORMAT": "json",
            "TOKENS_KEY": secrets.token_urlsafe(32),
            "WEB_CONCURRENCY": "1",
            "WEB_MAX_REQUESTS": "0",
            # Counted, and never refused: what is measured is the cost of an answer.
            "LIMITS_READS_RATE": "1000000",
            "LIMITS_READS_BURST": "1000000",
            "LIMITS_ADDRESS_RATE": "1000000",
            "LIMITS_ADDRESS_BURST": "1000000",
            "PORT": str(port),
        } | variables
        command = [*end_with_us(), sys.executable, "-m", "gunicorn"]
        command += ["--config", "gunicorn_config.py"]
        if app:
            command += ["--worker-class", f"{__name__}.{PlainWorker.__name__}", app]
        master = Popen(command, cwd=ROOT, env=os.environ | environment, stdout=log, stderr=log)
        try:
            _wait_for(master, port, Path(log.name))
            yield Service(f"http://127.0.0.1:{port}", master.pid)
        finally:
            master.terminate()
            master.wait()


def _wait_for(master: "Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while b"Application startup complete" not in log.read_bytes():
        if master.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"The service does not start:\n{log.read_text()}")
        time.sleep(0.05)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
