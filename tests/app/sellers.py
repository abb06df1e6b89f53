"""Booksellers in a process of their own, which behave as they are told."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2 as httpx

from app.development.demo_sellers import NAMES
from tests.process import ROOT, TIMEOUT


@dataclass
class Sellers:
    setting: str
    client: httpx.Client

    @property
    def address(self) -> str:
        """Of the first one; each answers for all, too."""
        return str(self.client.base_url).rstrip("/").removeprefix("http://")

    def behave(self, *names: str, **behaviour: Any) -> None:
        for name in names or NAMES:
            response = self.client.put(f"/{name}", json=behaviour)
            assert response.status_code == 204, response.text

    def requests(self, name: str) -> int:
        return int(self.client.get(f"/{name}").json()["requests"])

    def at_once(self, name: str = "") -> int:
        """The most requests that it, or all together, had at the same moment."""
        return int(self.client.get(f"/{name}").json()["at_once"])


@contextmanager
def running_sellers() -> Iterator[Sellers]:
    command = [sys.executable, "-u", "-m", "app", "demo-sellers", "--port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        # It listens before it says so.
        setting = process.stdout.readline().strip().removeprefix("OFFERS_SELLERS=").strip("'")
        first = setting.partition("=")[2].partition("/alpha/")[0]
        with httpx.Client(base_url=first, timeout=TIMEOUT) as client:
            yield Sellers(setting, client)
    finally:
        process.terminate()
        process.wait(TIMEOUT)
        process.stdout.close()
