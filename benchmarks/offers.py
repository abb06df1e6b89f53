"""How long `GET /v1/books/{book_id}/offers` takes while sellers are slow, hang or are down.

Each request is for another book, so that no offer is kept. The time is that of the client; on a
busy machine it has more to do with the machine than with us.
"""

import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import httpx2 as httpx

from app.development.demo_sellers import addresses, listening, run_sellers, setting
from benchmarks.service import fill, one_worker
from chassis.development.private_servers import embedded_valkey

REQUESTS = 20  # of each kind
LATENCY = 0.3  # s
DEADLINE = 0.8  # s
ADDED = 0.1  # s; what we may add to what sellers take
OPEN = 0.005  # s; what a seller may cost whose circuit is open


def main() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        listeners = stack.enter_context(listening())
        sellers = multiprocessing.Process(target=run_sellers, args=(listeners,), daemon=True)
        sellers.start()
        stack.callback(sellers.terminate)
        variables = {
            "DATABASE_URL": f"sqlite+aiosqlite:///{folder}/catalogue.db",
            "REDIS_URL": stack.enter_context(embedded_valkey(folder / "valkey")).url,
            "OFFERS_SELLERS": setting(listeners),
            "OFFERS_DEADLINE": str(DEADLINE),
            "HTTP_BREAKER_FAILURES": str(REQUESTS + 5),
        }
        asyncio.run(fill(variables["DATABASE_URL"]))
        service = stack.enter_context(one_worker(**variables))
        with httpx.Client(timeout=10) as client:
            results = compare(client, service.url, addresses(listeners)[0])
    for name, times in results.items():
        typical, longest = median(times) * 1000, max(times) * 1000
        print(f"{name:45} {typical:7.1f} ms, at most {longest:.1f} ms")
    at_once, late, quick, refused = map(median, results.values())
    raise SystemExit(at_once > LATENCY + ADDED or late > DEADLINE + ADDED or refused > quick + OPEN)


def compare(client: httpx.Client, service: str, sellers: str) -> dict[str, list[float]]:
    """How long each took, in s."""
    books = iter(ids(client, service))

    def behave(*names: str, **behaviour: Any) -> None:
        for name in names:
            client.put(f"{sellers}{name}", json=behaviour).raise_for_status()

    def took() -> list[float]:
        times = []
        for _ in range(REQUESTS):
            start = time.perf_counter()
            client.get(f"{service}/v1/books/{next(books)}/offers").raise_for_status()
            times.append(time.perf_counter() - start)
        return times

    results = {}
    behave("alpha", "beta", "gamma", latency=LATENCY)
    results[f"Three sellers that take {LATENCY} s each"] = took()
    behave("alpha", "beta", latency=0.0)
    behave("gamma", latency=60)
    results[f"One that hangs, its deadline {DEADLINE} s"] = took()
    behave("gamma", latency=0.0)
    results["Three that answer at once"] = took()
    behave("gamma", latency=0.0, errors=1)
    for _ in range(REQUESTS + 5):  # so often it may fail
        found = client.get(f"{service}/v1/books/{next(books)}/offers").raise_for_status().json()
        assert found["unavailable"] == ["gamma"]
    results["One of them down, its circuit open"] = took()
    return results


def ids(client: httpx.Client, service: str) -> Iterator[int]:
    after: dict[str, str] = {}
    while True:
        page = client.get(f"{service}/v1/books", params={"limit": "100", **after}).json()
        yield from (book["id"] for book in page["items"])
        if page["next"] is None:
            return
        after = {"after": page["next"]}


if __name__ == "__main__":
    main()
