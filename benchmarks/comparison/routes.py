"""What is requested: the same of every service, each in its own spelling."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import httpx2 as httpx

from app.services.book_pages import SORTS
from benchmarks.comparison.stage import Book

DESIGNS = {
    "limit": "the least possible: raw ASGI, asyncmy, redis-py",
    "bare": "FastAPI with one route and nothing around it",
    "before": "what articles warn of",
    "literature": "what articles recommend",
    "ours": "this service",
}
NO_STORE = "Cache-Control: no-store\r\n"
DEPTH = 0.9  # of the catalogue
LIKE = ("search", "before")
WORDS = re.compile(r"\b[A-Za-z]{4,} [A-Za-z]{4,}\b")


@dataclass(frozen=True)
class Route:
    name: str
    paths: dict[str, Iterator[str]]  # by design; without those that do not have it
    headers: str = NO_STORE


def check_same(route: Route, urls: Mapping[str, str]) -> None:
    """SystemExit unless all designs respond alike, each at its URL, to their next request."""
    found: dict[str, Any] = {}
    for design, paths in route.paths.items():
        body = httpx.get(urls[design] + next(paths), timeout=60).raise_for_status().json()
        found[design] = _gist(body)
    # What LIKE finds in titles is only some of what others find by words.
    same = {design: gist for design, gist in found.items() if (route.name, design) != LIKE}
    if not all(found.values()) or any(gist != same["ours"] for gist in same.values()):
        raise SystemExit(f"{route.name}: the responses differ, {found}")


def _gist(body: Any) -> Any:
    if "items" in body:
        return [(item["id"], item["authors"]) for item in body["items"]]
    if "offers" in body:
        return {offer["seller"]: offer["price"] for offer in body["offers"]}
    return body.get("authors") or body.get("status")


def routes(books: Sequence[Book]) -> list[Route]:
    """The same books for each, and each time others."""
    some = [book.id for book in books[: len(books) * 9 // 10 : max(1, len(books) // 500)]]
    everywhere = [*DESIGNS]
    with_data = [design for design in DESIGNS if design != "bare"]
    with_sellers = [design for design in with_data if design != "limit"]

    def same(designs: list[str], *paths: str) -> dict[str, Iterator[str]]:
        return {design: cycle(paths) for design in designs}

    def pages(*starts: int) -> dict[str, Iterator[str]]:
        """From books with these indexes on."""
        path = "/v1/books?limit=20&"
        after = [books[start].id for start in starts]
        cursors = [SORTS["id"].cursor(books[start]) for start in starts]
        plain = [f"{path}after={id}" for id in after]
        spelled = {
            "before": [f"{path}offset={start + 1}" for start in starts],
            "ours": [f"{path}after={cursor}" for cursor in cursors],
        }
        return {design: cycle(spelled.get(design, plain)) for design in with_data}

    deep = int(len(books) * DEPTH) - 40
    return [
        Route("health", same(everywhere, "/health")),
        Route("book, cached", same(with_data, *(f"/v1/books/{id}" for id in some)), headers=""),
        Route("book", same(with_data, *(f"/v1/books/{id}" for id in some))),
        Route("page of 20", pages(*range(30))),
        Route("page of 20, deep", pages(*range(deep, deep + 30))),
        Route("search", same(with_data, *searches(books))),
        Route("offers", same(with_sellers, *(f"/v1/books/{book.id}/offers" for book in books))),
    ]


def searches(books: Sequence[Book]) -> list[str]:
    """Two neighbouring words of some titles, so that LIKE finds them too."""
    found: list[str] = []
    for book in books[:: max(1, len(books) // 400)]:
        if match := WORDS.search(book.title):
            found.append(f"/v1/books?limit=20&q={match[0].replace(' ', '%20')}")
    return found[:100]
