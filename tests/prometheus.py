"""A real Prometheus, promtool and amtool: those on the PATH, or out of Debian's packages."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx

from chassis.development import debian_packages
from chassis.development.server_process import Server, probe
from tests.process import ROOT, free_port

CONFIG = ROOT / "docker" / "prometheus"
UNPACKED = ROOT / "var" / "prometheus"
PACKAGES = ["prometheus", "prometheus-alertmanager"]
INTERVAL = 1  # s between scrapes
READY = b"GET /-/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def program(name: str) -> str:
    """The path of `prometheus`, `promtool` or `amtool`."""
    if found := shutil.which(name):
        return found
    UNPACKED.parent.mkdir(exist_ok=True)
    with UNPACKED.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the tests run in two processes
        if not (UNPACKED / "usr" / "bin" / name).exists():
            shutil.rmtree(UNPACKED, ignore_errors=True)  # of a time with fewer packages
            debian_packages.unpack(PACKAGES, UNPACKED, print)
    return str(UNPACKED / "usr" / "bin" / name)


@dataclass(frozen=True)
class Prometheus:
    client: httpx.Client

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What it answers now: series with their labels and last value."""
        response = self.client.get("/api/v1/query", params={"query": expression})
        assert response.status_code == 200, f"{expression}: {response.text}"
        result: list[dict[str, Any]] = response.json()["data"]["result"]
        return result


@contextmanager
def scraping(target: str, jobs: str, folder: Path) -> Iterator[Prometheus]:
    """Run Prometheus with our configuration and rules, but with these targets, and every second."""
    shutil.copytree(CONFIG, folder / "config")
    config = folder / "config" / "prometheus.yml"
    text = config.read_text().replace("127.0.0.1:8000", target)
    text = text.replace("127.0.0.1:9100", jobs)
    config.write_text(text.replace("15s", f"{INTERVAL}s"))
    port = free_port()
    with (folder / "prometheus.log").open("wb") as log:
        server = Server(
            url=f"http://127.0.0.1:{port}",
            source="Prometheus",
            command=[
                program("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            is_ready=lambda: b"200 OK" in probe(("127.0.0.1", port), READY),
            log=log,
        )
        server.start()
        try:
            with httpx.Client(base_url=server.url) as client:
                yield Prometheus(client)
        finally:
            server.stop()
