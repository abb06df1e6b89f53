"""What the chain around a handler costs: CPU time per request, against bare FastAPI.

It is the CPU time of the worker, which a busy machine changes little. Both are asked in turn,
so what does change it changes it for both.
"""

import asyncio
import statistics

from benchmarks.client import ask
from benchmarks.service import Service, one_worker

ROUNDS = 7
REQUESTS = 10_000  # in each round
BUDGET = 1.5


def main() -> None:
    with one_worker("benchmarks.bare:app") as bare, one_worker() as service:
        for warming in (bare, service):
            cost(warming, REQUESTS // 10)
        print("CPU time per request, µs:   bare   whole chain   ratio")
        ratios = []
        for _ in range(ROUNDS):
            least, ours = cost(bare, REQUESTS), cost(service, REQUESTS)
            ratios.append(ours / least)
            print(f"{least:31.1f} {ours:13.1f} {ratios[-1]:7.2f}")
    ratio = statistics.median(ratios)
    print(f"Median ratio {ratio:.2f}, budget {BUDGET}")
    raise SystemExit(ratio > BUDGET)


def cost(service: Service, requests: int) -> float:
    """µs of CPU time per request."""
    start = service.cpu_time()
    asked = asyncio.run(ask(service.url, ["/health"], requests))
    if asked.answers != {200: requests}:
        raise SystemExit(f"Not all were answered: {asked}")
    return (service.cpu_time() - start) / requests * 1e6


if __name__ == "__main__":
    main()
