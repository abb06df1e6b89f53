"""The number of routes, the size of a response, and the number of its tags: no book is in SQL."""

from contextlib import ExitStack

import httpx2 as httpx

from benchmarks.designs.growing import TAGS
from benchmarks.growth.cost import Probe
from benchmarks.growth.lines import Chart
from benchmarks.growth.report import Report, curves, report_of
from benchmarks.growth.setup import Setup

APP = "benchmarks.designs.growing:create_app()"
CPU = "CPU time per response, µs"
ROUTES = (10, 30, 100, 200, 500)
COUNTS = (1, 10, 100, 1_000, 3_000)  # books of a response
LARGEST = "4194304"  # bytes that the cache may store; by default a sixteenth


def measure_routes(setup: Setup) -> Report:
    probes = []
    with ExitStack() as stack:
        for count in ROUTES:
            service = stack.enter_context(setup.running(APP, ROUTES=str(count)))
            asked = {"the first route": 0, "the last route": count - 1}
            probes += [
                Probe(line, count, service, [f"/v1/things{place}/7"], counts_rows=False)
                for line, place in asked.items()
            ]
        costs = setup.measure("routes", probes)
    charts = [Chart("routes", f"A route without I/O: {CPU}", "routes", curves(costs))]
    return report_of("routes", "The number of routes", "routes", costs, charts)


def measure_sizes(setup: Setup) -> Report:
    with setup.running(APP, ROUTES="0", CACHE_MAX_VALUE=LARGEST) as service:
        probes = []
        for line, path in {"made anew": "/v1/sized", "from the cache": "/v1/stored"}.items():
            for count in COUNTS:
                size = size_of(f"{service.url}{path}/{count}")
                probe = Probe(line, size, service, [f"{path}/{count}"], "", counts_rows=False)
                probes.append(probe)
        costs = setup.measure("sizes", probes)
    charts = [Chart("sizes", f"A list of books: {CPU}", "bytes of the response", curves(costs))]
    return report_of("sizes", "The size of a response", "bytes", costs, charts)


def measure_tags(setup: Setup) -> Report:
    with setup.running(APP, ROUTES="0") as service:
        for count in TAGS:
            size_of(f"{service.url}/v1/tagged{count}/1")
        probes = [
            Probe("from the cache", count, service, [f"/v1/tagged{count}/1"], "", counts_rows=False)
            for count in TAGS
        ]
        costs = setup.measure("tags", probes)
    charts = [Chart("tags", f"A cached response: {CPU}", "tags", curves(costs))]
    return report_of("tags", "The number of tags of a cached response", "tags", costs, charts)


def size_of(url: str) -> int:
    """Of the body, bytes. What may be cached must be so by now."""
    response = [httpx.get(url).raise_for_status() for _ in range(2)][-1]
    assert response.headers.get("X-Cache", "HIT") == "HIT", url
    return len(response.content)
