"""What nginx logs of each response, and what is counted of it."""

import json
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2 as httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.compose.images import debian, have, named
from tests.compose.stack import PRODUCTION, Stack, free_subnet, stack, wait_until
from tests.compose.subject import (
    PATH,
    RANKING,  # sample
)
from tests.metrics import total
from tests.process import free_port

FILES = [
    *PRODUCTION,
    "-f",
    "tests/compose/edge/compose.yml",
    "-f",
    "tests/compose/edge/exporter.yml",
]
Counts = Counter[tuple[int, str]]


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """nginx, what stands in for the service, and the exporter that counts."""
    with stack(tmp_path_factory.mktemp("edge"), "test-edge-log", FILES) as made:
        for name in ("FRONT_HTTP", "FRONT_HTTPS", "FRONT_SILENT", "EXPORTER"):
            made.variables[f"{name}_PORT"] = str(free_port())
        made.variables["EDGE_SUBNET"] = free_subnet()
        made.variables["NGINX_IMAGE"] = named(made, "nginx")
        have(made, "ghcr.io/google/mtail", debian("mtail", entrypoint="/usr/bin/mtail"))
        made.compose("up", "--detach", "--wait", "api", "nginx", "edge-exporter")
        yield made


def serve(edge: Stack, **variables: str) -> None:
    edge.compose("up", "--detach", "--wait", "--no-deps", "nginx", **variables)


def lines(edge: Stack) -> list[dict[str, Any]]:
    """All that nginx has written to stdout; a line that is no JSON fails."""
    [container] = edge.containers("nginx")
    written = edge.run("docker", "logs", container).stdout
    found = [json.loads(line) for line in written.splitlines() if not line.startswith("Waiting")]
    assert all(len(line.encode()) < 4096 for line in written.splitlines())
    return found


def logged(edge: Stack, key: str, value: object, number: int = 1) -> list[dict[str, Any]]:
    """Those lines, once they are written: it takes up to a second."""
    seen: list[dict[str, Any]] = []

    def are_written() -> bool:
        seen[:] = [line for line in lines(edge) if line[key] == value]
        return len(seen) >= number

    wait_until(are_written, f"{number} lines whose {key} is {value}")
    assert len(seen) == number
    return seen


def scraped(edge: Stack) -> tuple[Counts, float]:
    """The responses by status and source, and how many have a duration."""
    url = f"http://127.0.0.1:{edge.variables['EXPORTER_PORT']}/metrics"
    response = httpx.get(url, timeout=60)
    samples = [
        sample
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    ]
    counts = Counter(
        {
            (int(sample.labels["status"]), sample.labels["source"]): int(sample.value)
            for sample in samples
            if sample.name == "edge_responses_total"
        }
    )
    return counts, total(samples, "edge_request_duration_seconds_count")


class Counting:
    """What is counted from now on."""

    def __init__(self, edge: Stack) -> None:
        self.edge = edge
        self.before, self.durations = scraped(edge)

    def is_exactly(self, *expected: tuple[int, str, int]) -> None:
        wanted = Counter({(status, source): number for status, source, number in expected})
        number = wanted.total()
        wait_until(
            lambda: scraped(self.edge)[1] - self.durations >= number, f"{number} more responses"
        )
        counts, durations = scraped(self.edge)
        assert counts - self.before == wanted
        assert durations - self.durations == number


ODD = [
    rb'GET /a"quoted"\path?secret="x" HTTP/1.1',
    b"GET /\xff\xfe/not-utf-8 HTTP/1.1",
    "GET /b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher HTTP/1.1".encode(),
    b"GET /%00%0a%22%5c HTTP/1.1",
    b"GET /control\x01byte HTTP/1.1",
    b"GET /" + b"a" * 7000 + b" HTTP/1.1",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1",
    b"A" * 2000 + b" /method HTTP/1.1",
    b"get / HTTP/1.1",
    b"GET http://[::1]/absolute HTTP/1.1",
    b"GET /version HTTP/9.9",
    b"GET /old",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b'{"not": "http"}',
    b"",
]
HOSTS = [b"service.example", b'quo"ted', b"\xff\xfe", b"a" * 3000, b"two words", b""]


def send(edge: Stack, request: bytes) -> bytes:
    address = ("127.0.0.1", int(edge.variables["HTTP_PORT"]))
    with socket.create_connection(address, 10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while part := connection.recv(65536):
            received += part
    return received


def test_every_line_is_json_whatever_was_asked(edge: Stack):
    for first in ODD:
        headers = b'Host: x\r\nX-Request-ID: "\xff"\r\nConnection: close'
        send(edge, first + b"\r\n" + headers + b"\r\n\r\n")
    for host in HOSTS:
        send(edge, b"GET /host HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
    with edge.client() as client:
        client.get("/last")
    logged(edge, "path", "/last")

    seen = lines(edge)
    paths = {line["path"] for line in seen}
    assert not {'/a"quoted"\\path', "/", "/b", "/" + "a" * 999} - paths
    assert {line["host"] for line in seen} >= {"service.example", "a" * 255}
    assert {400, 200, 414} <= {line["status"] for line in seen}
    assert len(seen) >= len(ODD) + len(HOSTS)


def test_line_says_who_made_the_response_and_joins_that_of_the_service(edge: Stack):
    with edge.client(Host="service.example") as client:
        made = client.get(f"{PATH}/7?q=secret", headers={"X-Request-ID": "of-the-client.1"})
        forged = client.get(f"{PATH}/8", headers={"X-Request-ID": "not well-formed"})
        refused = client.get("/metrics?token=secret")
        # sample: begin
        for _ in range(2):
            client.get(f"{RANKING}?limit=4")
        # sample: end

    [line] = logged(edge, "request_id", "of-the-client.1")
    assert made.json()["headers"]["x-request-id"] == "of-the-client.1"
    assert line["method"], line["path"] == ("GET", f"{PATH}/7")
    assert (line["host"], line["status"], line["source"]) == ("service.example", 200, "service")
    assert (line["level"], line["bytes"]) == ("INFO", len(made.content))
    assert line["upstream_addr"].endswith(":8000")
    assert line["upstream_status"] == "200"
    assert 0 <= line["upstream_response_time"] <= line["request_time"] + 0.001  # rounded each
    assert "secret" not in json.dumps(lines(edge))

    [own] = logged(edge, "request_id", forged.headers["X-Request-ID"])
    assert own["request_id"] == forged.json()["headers"]["x-request-id"]
    [line] = logged(edge, "request_id", refused.headers["X-Request-ID"])
    assert (line["status"], line["source"], line["upstream_response_time"]) == (404, "edge", None)
    # sample: begin
    rankings = logged(edge, "path", RANKING, 2)
    assert [(line["cache"], line["source"]) for line in rankings] == [
        ("MISS", "service"),
        ("HIT", "service"),
    ]
    # sample: end


def test_responses_are_counted_by_who_made_them(edge: Stack):
    counting = Counting(edge)
    with edge.client() as client:
        for _ in range(7):
            client.get(PATH)
        for status in (429, 502, 503, 504):
            client.get(f"/status/{status}")
        for _ in range(3):
            client.get(f"{PATH}?limit=5")
        client.post(PATH, content=b"x" * 100_000)
        client.get("/health/ready")
        for _ in range(5):
            assert client.get("/health").status_code == 200  # a probe, and no traffic
    send(edge, b"nonsense\r\n\r\n")

    of_service = ((200, 10), (429, 1), (502, 1), (503, 1), (504, 1))
    of_edge = ((400, 1), (404, 1), (413, 1))
    counting.is_exactly(
        *((status, "service", number) for status, number in of_service),
        *((status, "edge", number) for status, number in of_edge),
    )
    assert "/health" not in {line["path"] for line in lines(edge)}


def test_what_nginx_refuses_is_counted_as_its_own(edge: Stack):
    counting = Counting(edge)
    serve(edge, EDGE_RATE="1", ALLOWED_HOSTS="service.example")
    with edge.client(Host="service.example") as client:
        statuses = Counter(client.get(PATH).status_code for _ in range(20))
    misdirected = send(edge, b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    serve(edge)

    assert b" 421 " in misdirected
    assert statuses[429] >= 10
    counting.is_exactly(
        (200, "service", statuses[200]), (429, "edge", statuses[429]), (421, "edge", 1)
    )


def test_service_that_is_stopped_or_frozen_is_counted_as_the_edge_sees_it(edge: Stack):
    """The service itself counts none of these."""
    counting = Counting(edge)
    [api] = edge.containers("api")
    edge.done("docker", "pause", api)
    try:
        with edge.client() as client, ThreadPoolExecutor(5) as threads:
            client.timeout = httpx.Timeout(60)
            frozen = list(threads.map(lambda _: client.post(PATH).status_code, range(5)))
    finally:
        edge.done("docker", "unpause", api)
    edge.compose("stop", "--timeout", "0", "api")
    try:
        with edge.client() as client:
            stopped = [client.get(path).status_code for path in (PATH, "/health")]
    finally:
        edge.compose("start", "api")
    with edge.client() as client:
        wait_until(lambda: client.get("/health").status_code == 200, "nginx to find it again")

    assert (frozen, stopped) == ([503] * 5, [503] * 2)
    counting.is_exactly((503, "edge", 6))  # the probe excepted

    def probes() -> set[tuple[Any, ...]]:
        found = [line for line in lines(edge) if line["path"] == "/health"]
        return {(line["status"], line["source"], line["level"]) for line in found}

    # Docker reads the log after nginx has written it.
    wait_until(lambda: probes() == {(503, "edge", "WARNING")}, "the line of the probe")


def test_reader_that_stalls_delays_no_response_and_misses_none(edge: Stack):
    counting = Counting(edge)
    [exporter] = edge.containers("edge-exporter")
    edge.done("docker", "pause", exporter)
    try:
        with edge.client() as client:
            for _ in range(400):
                assert client.get(PATH).status_code == 200
    finally:
        edge.done("docker", "unpause", exporter)

    counting.is_exactly((200, "service", 400))


def test_file_of_responses_stays_small_and_none_is_missed(edge: Stack):
    def size() -> int:
        return int(edge.inside("nginx", "stat -c %s /run/responses/log || echo 0").stdout)

    counting = Counting(edge)
    sent = 0
    edge.inside("nginx", "head -c 4000000 /dev/zero | tr '\\0' '\\n' >>/run/responses/log")
    with edge.client() as client:
        while size() > 1_000_000:
            assert client.get(PATH).status_code == 200
            sent += 1
        for _ in range(200):
            assert client.get(PATH).status_code == 200

    counting.is_exactly((200, "service", sent + 200))
    total_size = edge.inside("nginx", "du -sk /run/responses").stdout.split()[0]
    assert int(total_size) < 8000
