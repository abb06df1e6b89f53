"""Exporters out of Debian's packages, and a Prometheus that scrapes them."""

import asyncio
import fcntl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2 as httpx
import redis
from sqlalchemy import URL

from chassis.development import debian_packages
from chassis.development.server_process import Server, probe
from tests.conftest import execute
from tests.process import ROOT, free_port
from tests.prometheus import CONFIG, INTERVAL, READY, Prometheus, program

PACKAGES = ["mtail", "prometheus-mysqld-exporter", "prometheus-redis-exporter"]
PACKAGES += ["prometheus-nginx-exporter", "prometheus-node-exporter"]
UNPACKED = ROOT / "var" / "exporters"
METRICS = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
STATUS = b"Active connections: 3 \nserver accepts handled requests\n 9 9 90 \n"
STATUS += b"Reading: 0 Writing: 1 Waiting: 2 \n"
LINES = "200 service 0.012\n200 service 0.700\n304 service 0.001\n404 edge 0.000\n"
LINES += "503 service 0.200\n503 edge 1.001\n429 edge 0.000\n"


def executable(name: str) -> str:
    UNPACKED.parent.mkdir(exist_ok=True)
    with UNPACKED.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not UNPACKED.exists():
            debian_packages.unpack(PACKAGES, UNPACKED, print)
    return str(UNPACKED / "usr" / "bin" / name)


class Status(BaseHTTPRequestHandler):
    """What nginx says at /status."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(STATUS)

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@contextmanager
def status_page() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Status)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/status"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def responses(log: Path) -> Iterator[None]:
    """Some each second, as nginx logs them for mtail."""
    ended = threading.Event()

    def write() -> None:
        while not ended.wait(0.2):
            with log.open("a") as file:
                file.write(LINES)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def running(command: list[str], port: int, log: Path, request: bytes = METRICS) -> Iterator[Server]:
    with log.open("wb") as output:
        server = Server(
            url=f"http://127.0.0.1:{port}",
            source=command[0],
            command=command,
            is_ready=lambda: b"200 OK" in probe(("127.0.0.1", port), request),
            log=output,
        )
        server.start()
        try:
            yield server
        finally:
            server.stop()


def work(mariadb: URL, valkey: str) -> None:
    """Ratios need something to divide by."""
    asyncio.run(execute(mariadb, "SELECT COUNT(*) FROM mysql.innodb_table_stats"))
    with redis.Redis.from_url(valkey) as client:
        client.set("key", "value", ex=1)
        client.get("key")
        client.get("another")


@contextmanager
def scraping_exporters(mariadb: URL, valkey: str, folder: Path) -> Iterator[Prometheus]:
    """Of this MariaDB, of this Valkey for both, of a log of nginx, and of this machine."""
    asyncio.run(execute(mariadb, "CREATE USER observe@localhost IDENTIFIED BY 'observe'"))
    asyncio.run(
        execute(mariadb, "GRANT PROCESS, SLAVE MONITOR, SELECT ON *.* TO observe@localhost")
    )
    options = folder / "my.cnf"
    options.write_text(
        f"[client]\nuser=observe\npassword=observe\nsocket={mariadb.query['unix_socket']}\n"
    )
    log = folder / "responses"
    log.touch()
    with ExitStack() as stack:
        page = stack.enter_context(status_page())
        commands = {
            "mariadb": ["prometheus-mysqld-exporter", f"--config.my-cnf={options}"],
            "valkey": ["prometheus-redis-exporter", f"--redis.addr={valkey}"],
            "queue": ["prometheus-redis-exporter", f"--redis.addr={valkey}"],
            "nginx": ["prometheus-nginx-exporter", f"--nginx.scrape-uri={page}"],
            "node": ["prometheus-node-exporter"],
            "edge": ["mtail", f"--progs={ROOT / 'docker/mtail'}", f"--logs={log}", "--logtostderr"],
        }
        ports = {job: free_port() for job in commands}
        for job, (name, *arguments) in commands.items():
            listen = [f"--web.listen-address=127.0.0.1:{ports[job]}"]
            if name == "mtail":
                listen = ["--emit_prog_label=false", f"--port={ports[job]}"]
            command = [executable(name), *arguments, *listen]
            stack.enter_context(running(command, ports[job], folder / f"{job}.log"))
        stack.enter_context(responses(log))
        port = free_port()
        config = folder / "prometheus.yml"
        config.write_text(
            f"global: {{scrape_interval: {INTERVAL}s, evaluation_interval: {INTERVAL}s}}\n"
            f"rule_files: [{CONFIG / 'rules.yml'}]\nscrape_configs:\n"
            + "".join(
                f"- {{job_name: {job}, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}\n"
                for job, port in ports.items()
            )
        )
        command = [program("prometheus"), f"--config.file={config}"]
        command += [f"--storage.tsdb.path={folder / 'data'}"]
        command += [f"--web.listen-address=127.0.0.1:{port}"]
        server = stack.enter_context(running(command, port, folder / "prometheus.log", READY))
        client = stack.enter_context(httpx.Client(base_url=server.url))
        prometheus = Prometheus(client)
        deadline = time.monotonic() + 120
        while len(prometheus.query("count_over_time(up[5m]) > 20")) < len(ports):
            assert time.monotonic() < deadline, "not all exporters were scraped"
            work(mariadb, valkey)
            time.sleep(0.5)
        yield prometheus
