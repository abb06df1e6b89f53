"""The service as its users run it: Gunicorn in a process of its own, on a free port."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx

from tests.accounts import KEY

ROOT = Path(__file__).parent.parent
TIMEOUT = 120  # s; ends what hangs, and is no promise: a busy machine takes many times as long


@dataclass
class Service:
    process: subprocess.Popen[bytes]
    url: str
    output: Path

    def client(self) -> httpx.AsyncClient:
        """One that is as patient as the tests: httpx itself gives up after 5 s."""
        return httpx.AsyncClient(base_url=self.url, timeout=TIMEOUT)

    @property
    def workers(self) -> list[int]:
        """The pids of the processes that Gunicorn has forked."""
        return children(self.process.pid)

    def connections(self, worker: int) -> int:
        """How many clients a worker is connected with."""
        port = f":{int(self.url.rsplit(':', 1)[1]):04X}"
        fields = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        # Columns: local address, state (01 is established), inode.
        ours = {f"socket:[{f[9]}]" for f in fields if f[1].endswith(port) and f[3] == "01"}
        return len(ours.intersection(self.open_files(worker)))

    def open_files(self, worker: int) -> list[str]:
        """What its file descriptors point to."""
        links: list[str] = []
        for fd in Path(f"/proc/{worker}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                links.append(os.readlink(fd))
        return links

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What was logged so far; other output is none of it."""
        lines = self.output.read_bytes().splitlines()
        return [json.loads(line) for line in lines if line.startswith(b"{")]

    def messages(self, part: str) -> list[str]:
        return [line["message"] for line in self.lines if part in line["message"]]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def wait_for(self, message: str, times: int = 1) -> None:
        """Until that many lines of the log hold the message."""
        await wait_until(lambda: len(self.messages(message)) >= times, f"{message} in the log")


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def freeze(process: subprocess.Popen[bytes]) -> None:
    """Stop it until SIGCONT, and wait until all its threads have stopped.

    `kill` returns earlier: on a busy machine a server answers some more requests meanwhile.
    """
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)


async def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"waited {TIMEOUT} s for {what}"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def running(
    output: Path, *, app: str = "tests.service:create_app()", **variables: Any
) -> AsyncIterator[Service]:
    """Gunicorn with the project's configuration; killed if it does not stop by itself.

    `app`: instead of that of the configuration, which is without the resource of the tests.
    """
    port = free_port()
    environment = os.environ | {"PORT": str(port), "LOG_FORMAT": "json", "TOKENS_KEY": KEY}
    environment |= {name: str(value) for name, value in variables.items()}
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--config", "gunicorn_config.py", app],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    service = Service(process, f"http://127.0.0.1:{port}", output)
    try:
        started = "Application startup complete"
        workers = int(environment["WEB_CONCURRENCY"])
        await wait_until(
            lambda: process.poll() is not None or len(service.messages(started)) == workers,
            "all workers",
        )
        assert process.poll() is None, output.read_text()
        yield service
    finally:
        process.terminate()
        try:
            process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            for pid in [*service.workers, process.pid]:
                os.kill(pid, signal.SIGKILL)
            raise


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_for_port(port: int) -> None:
    """Until a server of this machine listens there."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, f"waited {TIMEOUT} s for port {port}"
            time.sleep(0.05)
