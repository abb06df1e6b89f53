"""A private server process: started, probed and stopped; the kernel ends it with its parent."""

import fcntl
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

START_TIMEOUT = 30
STOP_TIMEOUT = 15
LOCK_TIMEOUT = 5


class ServerUnavailable(Exception):
    """No server could be started; the message lists what was tried and what to do."""


@dataclass(kw_only=True)
class Server:
    """`url` stays the same over `stop()` and `start()`."""

    url: str
    source: str
    command: Sequence[str]
    is_ready: Callable[[], bool]
    log: BinaryIO
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Start it and wait until it is ready.

        Only from the main thread: Linux ends the server with the *thread* that started it.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("servers are started from the main thread")
        start_of_log = os.fstat(self.log.fileno()).st_size
        self.process = subprocess.Popen(
            [*end_with_us(), *self.command],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            env={**os.environ, **self.environment},
            # Ctrl-C is for the service, which still needs its servers while it drains.
            start_new_session=True,
        )
        try:
            self._wait_until_ready(self.process, start_of_log)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def _wait_until_ready(self, process: subprocess.Popen[bytes], start_of_log: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not self.is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                log = Path(self.log.name).read_bytes()[start_of_log:].decode(errors="replace")
                end = "\n    ".join(log.splitlines()[-10:])
                program = Path(self.command[0]).name
                raise ServerUnavailable(f"{program} does not come up, {self.log.name}:\n    {end}")
            time.sleep(0.05)


@dataclass(frozen=True)
class Place:
    """A folder, the path of a socket and a log, for one server."""

    folder: Path
    socket: str
    log: BinaryIO


@contextmanager
def reserve(folder: Path, name: str) -> Iterator[Place]:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    with plain_path(folder) as short, (folder / f"{name}.log").open("ab") as log:
        _lock(log)
        yield Place(short, str(short / f"{name}.sock"), log)


@contextmanager
def plain_path(folder: Path) -> Iterator[Path]:
    """The path of `folder`, or a link to it if that has blanks or is too deep for a socket.

    A socket's path has at most 103 bytes on macOS and 107 on Linux, and mariadb-install-db does
    not quote the paths that it is given.
    """
    folder = folder.resolve()
    if len(os.fsencode(folder)) < 85 and re.fullmatch(r"[\w./+-]+", str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="folder-", dir="/tmp") as temporary:
        link = Path(temporary, "link")
        link.symlink_to(folder)
        yield link


def _lock(log: BinaryIO) -> None:
    """Only one run uses a folder at a time. A server inherits the lock with its log."""
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            return fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ServerUnavailable(f"Another run uses {Path(log.name).parent}.") from None
        time.sleep(0.05)


def end_with_us() -> list[str]:
    """Put before a command, it has Linux end that with SIGTERM when this process dies."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM"] if setpriv else []


def probe(address: str | tuple[str, int], request: bytes = b"") -> bytes:
    """The first bytes of the response; none where nothing listens."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as connection:
        connection.settimeout(1)
        try:
            connection.connect(address)
            connection.sendall(request)
            return connection.recv(64)
        except OSError:
            return b""


def run(*command: str | Path, timeout: float = 120, env: Mapping[str, str] | None = None) -> str:
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=timeout, env=env
    ).stdout
