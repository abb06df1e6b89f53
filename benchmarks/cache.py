"""What a cached answer costs: of this service, of the least there is, and of the literature's way.

It is the CPU time of the worker, taken in short turns, as in benchmarks/overhead.py.
"""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2
from redis import Redis

from app.servers.private import embedded_valkey
from benchmarks import limit
from benchmarks.client import ask
from benchmarks.service import Service, fill, one_worker

PATH = "/v1/books/7"
TURNS = 20
REQUESTS = 2_000  # in each turn
TO_LIMIT = 1.8
TO_LITERATURE = 6


def main() -> None:
    with services() as asked:
        spent = dict.fromkeys(asked, 0.0)
        for service in asked.values():
            cost(service)  # what happens once is not of interest
        for _ in range(TURNS):
            for name, service in asked.items():
                spent[name] += cost(service)
    limit, ours, unlimited, literature = (
        seconds / (TURNS * REQUESTS) * 1e6 for seconds in spent.values()
    )
    print("CPU time of the worker for a cached answer, µs per request:")
    print(f"  {limit:4.0f}  raw ASGI under plain uvicorn, and one GET by redis-py")
    print(f"  {ours:4.0f}  this service: {ours / limit:.2f} times that (budget {TO_LIMIT})")
    print(f"  {unlimited:4.0f}  this service without rate limits, which the next has not either")
    print(
        f"  {literature:4.0f}  the way of the literature: {literature / unlimited:.1f} times that"
        f" (budget {TO_LITERATURE})"
    )
    raise SystemExit(ours / limit > TO_LIMIT or literature / unlimited < TO_LITERATURE)


@contextmanager
def services() -> Iterator[dict[str, Service]]:
    """The limit, this service twice and the literature's, with the same book in the cache."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        redis_url = stack.enter_context(embedded_valkey(folder / "valkey")).url
        database = f"sqlite+aiosqlite:///{folder}/catalogue.db"
        asyncio.run(fill(database))

        def start(app: str | None = None, **variables: str) -> Service:
            service = stack.enter_context(
                one_worker(app, REDIS_URL=redis_url, DATABASE_URL=database, **variables)
            )
            body = httpx2.get(service.url + PATH)
            assert body.status_code == 200, body.text
            return service

        ours = start()
        again = httpx2.get(ours.url + PATH)
        assert again.headers["X-Cache"] == "HIT", again.headers
        assert "RateLimit" in again.headers
        with Redis.from_url(redis_url) as redis:
            redis.set(limit.KEY, again.content)
        yield {
            "limit": start("benchmarks.limit:app"),
            "ours": ours,
            "unlimited": start(LIMITS_ENABLED="0"),
            "literature": start("benchmarks.literature:app"),
        }


def cost(service: Service) -> float:
    """Seconds of CPU time for so many requests."""
    start = service.cpu_time()
    asked = asyncio.run(ask(service.url, [PATH], REQUESTS))
    if asked.answers != {200: REQUESTS}:
        raise SystemExit(f"Not all were answered: {asked}")
    return service.cpu_time() - start


if __name__ == "__main__":
    main()
