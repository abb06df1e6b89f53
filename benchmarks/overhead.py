"""What the chain around a handler costs: CPU time per request, against bare FastAPI.

It is the CPU time of the worker, which a busy machine changes less than the time that passes. Both
are asked in short turns, so what does change it changes it for both.
"""

import asyncio

from benchmarks.client import ask
from benchmarks.service import Service, one_worker

TURNS = 30
REQUESTS = 3_000  # in each turn
BUDGET = 1.5


def main() -> None:
    with one_worker("benchmarks.bare:app") as bare, one_worker() as service:
        spent = {bare.url: 0.0, service.url: 0.0}
        for each in (bare, service):
            cost(each)  # what happens once is not of interest
        for _ in range(TURNS):
            for each in (bare, service):
                spent[each.url] += cost(each)
    least, ours = (seconds / (TURNS * REQUESTS) * 1e6 for seconds in spent.values())
    print(f"A FastAPI route without anything around it: {least:.0f} µs of CPU time per request")
    print(f"/health of this service, through all of it: {ours:.0f} µs")
    print(f"Ratio {ours / least:.2f}, budget {BUDGET}")
    raise SystemExit(ours / least > BUDGET)


def cost(service: Service) -> float:
    """Seconds of CPU time for so many requests."""
    start = service.cpu_time()
    asked = asyncio.run(ask(service.url, ["/health"], REQUESTS))
    if asked.answers != {200: REQUESTS}:
        raise SystemExit(f"Not all were answered: {asked}")
    return service.cpu_time() - start


if __name__ == "__main__":
    main()
