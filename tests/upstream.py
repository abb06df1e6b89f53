"""Another server, in a process of its own, which behaves as it is told.

`GET /NAME/...` is what a service asks for, `PUT /NAME` sets how that host behaves.
"""

import asyncio
import random
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2 as httpx
import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel

from tests.process import ROOT, TIMEOUT


class Behaviour(BaseModel):
    latency: float = 0  # s; until it responds
    errors: float = 0  # share of responses that are 503
    size: int = 2  # bytes of its responses
    retry_after: int | None = None  # `Retry-After` of its 503, s


class Count(BaseModel):
    """Requests since the behaviour was set."""

    requests: int = 0
    busy: int = 0
    at_once: int = 0  # the maximum of `busy`


def create_upstream() -> FastAPI:
    app = FastAPI()
    behaviours: defaultdict[str, Behaviour] = defaultdict(Behaviour)
    counts: defaultdict[str, Count] = defaultdict(Count)

    @app.put("/{name}", status_code=204)
    async def behave(name: str, behaviour: Behaviour) -> None:
        behaviours[name], counts[name] = behaviour, Count()

    @app.get("/{name}")
    async def get_count(name: str) -> Count:
        return counts[name]

    @app.get("/{name}/{path}")
    async def respond(name: str, path: str) -> Response:
        behaviour, count = behaviours[name], counts[name]
        count.requests += 1
        count.busy += 1
        count.at_once = max(count.at_once, count.busy)
        try:
            await asyncio.sleep(behaviour.latency)
        finally:
            count.busy -= 1
        if random.random() < behaviour.errors:
            after = behaviour.retry_after
            headers = {} if after is None else {"Retry-After": str(after)}
            return Response(status_code=503, headers=headers)
        return Response(b"x" * behaviour.size)

    return app


@dataclass
class Upstream:
    client: httpx.Client

    def url(self, name: str) -> str:
        return f"{str(self.client.base_url).rstrip('/')}/{name}/7"

    def behave(self, name: str, **behaviour: Any) -> None:
        response = self.client.put(f"/{name}", json=behaviour)
        assert response.status_code == 204, response.text

    def requests(self, name: str) -> int:
        return int(self.client.get(f"/{name}").json()["requests"])

    def at_once(self, name: str) -> int:
        """The most requests that it had at the same moment."""
        return int(self.client.get(f"/{name}").json()["at_once"])


@contextmanager
def running_upstream() -> Iterator[Upstream]:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # it listens before it is started
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.upstream", str(listener.fileno())],
            cwd=ROOT,
            pass_fds=[listener.fileno()],
        )
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        with httpx.Client(base_url=url, timeout=TIMEOUT) as client:
            client.get("/alpha")  # responds once it has started: not while an event loop waits
            yield Upstream(client)
    finally:
        process.terminate()
        process.wait(TIMEOUT)


def main() -> None:
    config = uvicorn.Config(
        create_upstream(),
        log_level="critical",
        access_log=False,
        loop="uvloop",
        timeout_graceful_shutdown=1,  # s; it may hang
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])


if __name__ == "__main__":
    main()
