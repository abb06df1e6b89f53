"""An S3 server in a process of its own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx

from tests.process import TIMEOUT, free_port, wait_for_port


@contextmanager
def running_s3(log: Path) -> Iterator[str]:
    """Its URL; buckets are made by PUT."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-p", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            wait_for_port(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(TIMEOUT)


def make_bucket(url: str, name: str) -> None:
    credential = "Credential=key/20260101/us-east-1/s3/aws4_request"
    response = httpx.put(
        f"{url}/{name}", headers={"Authorization": f"AWS4-HMAC-SHA256 {credential}"}
    )
    assert response.status_code == 200, response.text
