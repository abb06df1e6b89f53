"""Answers kept as bytes: a hit needs no dependency, no database connection and no JSON."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, quote, urlencode

from fastapi import Request, Response
from starlette.types import Scope

from app.cache import Admit, Cache, Found, Recipe, bypassed
from app.cache_entry import Lifetime, short
from app.errors import NotFound
from app.etag import etag, read_etags
from app.stored_response import BytesResponse, Headers, pack, unpack

Handler = Callable[[Request], Awaitable[Response]]
F = TypeVar("F", bound=Callable[..., Any])

CREDENTIALS = (b"authorization",)
VARY = (b"vary", b"Authorization")
PRIVATE = "private, no-store"
OWN_WORD = {b"set-cookie", b"cache-control"}  # a handler that sends one knows who may keep it


@dataclass(frozen=True)
class Caching:
    """What `cached` says of a route."""

    lifetime: Lifetime
    tags: Sequence[str]
    control: bytes


def cached(
    *,
    ttl: float,
    tags: Sequence[str],
    stale: float = 0,
    ahead: float = 0,
    max_age: int | None = None,
    stale_while_revalidate: int | None = None,
) -> Callable[[F], F]:
    """Keep the answers of this handler for `ttl` s, or until one of `tags` is invalidated.

    `tags` may name path parameters: "book:{book_id}". For `stale` and `ahead` see Lifetime.
    Browsers and CDNs may keep an answer, but ask each time whether it still holds, unless
    `max_age` (s) lets them go without.
    """
    control = "public, no-cache"
    if max_age is not None:
        control = f"public, max-age={max_age}"
        if stale_while_revalidate is not None:
            control += f", stale-while-revalidate={stale_while_revalidate}"
    caching = Caching(Lifetime(ttl, stale, ahead), tags, control.encode())

    def mark(handler: F) -> F:
        handler.caching = caching  # type: ignore[attr-defined]
        return handler

    return mark


class Wish(NamedTuple):
    """What a request says about caches."""

    credentials: bool
    bypass: bool
    if_none_match: bytes | None

    def has(self, tag: bytes) -> bool:
        if self.if_none_match is None:
            return False
        try:
            return read_etags(self.if_none_match.decode("latin-1")).match(tag.decode())
        except ValueError:
            return False


def read_wish(scope: Scope) -> Wish:
    credentials = bypass = False
    if_none_match = None
    for name, value in scope["headers"]:
        if name in CREDENTIALS:
            credentials = True
        elif name == b"cache-control":
            bypass |= b"no-cache" in value.lower() or b"no-store" in value.lower()
        elif name == b"if-none-match":
            # Several lines are one list (RFC 9110, 5.3).
            if_none_match = value if if_none_match is None else b"%b, %b" % (if_none_match, value)
    return Wish(credentials, bypass, if_none_match)


class NotStored(Exception):
    """An answer that is neither 200 nor 404, or for nobody but who has asked."""

    def __init__(self, response: Response, scope: Scope) -> None:
        self.response = response
        self.scope = scope


class CachedHandler:
    """Answers from the cache, or from the handler of a route and fills the cache."""

    def __init__(
        self, handler: Handler, caching: Caching, version: str, defaults: set[tuple[str, str]]
    ) -> None:
        """`version` tells answers of one shape from another; `defaults` are those of the query."""
        self.handler = handler
        self.caching = caching
        self.version = version
        self.defaults = defaults

    async def __call__(self, scope: Scope, admit: Admit, possible: bool) -> Response:
        """`possible`: whether there can be what the path names; else it gets no entry and no tags.

        Raises what the handler raises, and NotFound of an entry.
        """
        wish = read_wish(scope)
        if not possible or wish.credentials or wish.bypass:
            await admit()
            return await (self._bypass(scope, wish) if possible else self._work(scope))
        key = f"{self.version}:{canonical(scope, self.defaults)}"
        tags = [tag.format_map(scope["path_params"]) for tag in self.caching.tags]
        recipe = Recipe(key, lambda: self._load(scope), self.caching.lifetime, tags)
        cache: Cache = scope["state"]["cache"]
        try:
            found = await cache.fetch(recipe, admit)
        except NotStored as error:
            # Who waited for somebody else's has none yet.
            response = error.response if error.scope is scope else await self._work(scope)
            response.headers.setdefault("Cache-Control", PRIVATE)
            return response
        scope["state"]["workload"].remember(scope)
        return self._answer(found, wish)

    async def _bypass(self, scope: Scope, wish: Wish) -> Response:
        scope["state"]["metrics"].cache_lookups["bypass"].inc()
        control = PRIVATE.encode() if wish.credentials else self.caching.control
        marks = [(b"cache-control", control), VARY, (b"x-cache", b"BYPASS")]
        inner = bypassed.set(True)
        try:
            response = await self._work(scope)
        except NotFound as error:
            raise NotFound(str(error), _as_text(marks)) from None
        finally:
            bypassed.reset(inner)
        if response.status_code == 200:
            tag = etag(bytes(response.body)).encode()
            marks.append((b"etag", tag))
            if wish.has(tag):
                return BytesResponse(304, marks, b"")
        given = {name for name, _ in response.raw_headers} & OWN_WORD
        marks = [mark for mark in marks if mark[0] not in given]
        response.raw_headers = [*response.raw_headers, *marks]
        return response

    async def _load(self, scope: Scope) -> bytes:
        response = await self._work(scope)
        own = {name for name, _ in response.raw_headers} & OWN_WORD
        if response.status_code != 200 or own:
            raise NotStored(response, scope)
        return pack(response)

    async def _work(self, scope: Scope) -> Response:
        """Run the handler with what FastAPI makes for a request; that one may be over."""
        async with AsyncExitStack() as stack:
            stacks = dict.fromkeys(("fastapi_inner_astack", "fastapi_function_astack"), stack)
            with scope["state"]["workload"]:
                return await self.handler(Request({**scope, **stacks}))

    def _answer(self, found: Found, wish: Wish) -> Response:
        entry, state = found
        marks = [
            (b"cache-control", self.caching.control),
            VARY,
            (b"x-cache", state.encode()),
            (b"age", b"%d" % entry.age),
        ]
        if entry.missing:
            raise NotFound(entry.payload.decode(), _as_text(marks))
        tag, headers, body = unpack(entry.payload)
        marks.append((b"etag", tag))
        if wish.has(tag):
            return BytesResponse(304, marks, b"")
        length = (b"content-length", b"%d" % len(body))
        return BytesResponse(200, [*headers, length, *marks], body)


def canonical(scope: Scope, defaults: set[tuple[str, str]]) -> str:
    """One name for one answer: without what is said anyway, in one order.

    Other ways to write the same, such as `limit=020`, are refused before an answer is stored.
    """
    name = quote(scope["path"])  # whose own `?` is none of ours
    if query := scope["query_string"]:
        pairs = set(parse_qsl(query.decode("latin-1"), keep_blank_values=True)) - defaults
        if pairs:
            name += "?" + urlencode(sorted(pairs))
    return short(name)


def _as_text(headers: Headers) -> dict[str, str]:
    return {name.decode().title(): value.decode() for name, value in headers}
