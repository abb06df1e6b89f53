from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from chassis.auth.credentials import identify
from chassis.cache.entry import shorten
from chassis.cache.load_spec import CacheResult, LoadSpec
from chassis.cache.metrics import CacheMetrics
from chassis.cache.type_fingerprint import fingerprint, shape
from chassis.errors import NotFound
from chassis.http.cached_responses import CacheDirectives, CachePolicy, parse_directives
from chassis.http.etag import etag, is_listed
from chassis.http.parameters import PathParameters, spelling
from chassis.http.request_state import HttpState
from chassis.http.stored_response import Headers, pack, unpack
from chassis.limits.rate_limit import client_network
from chassis.limits.route_limits import Check, RateLimitRule, start_check

Handler = Callable[[Request], Awaitable[Response]]

BYPASS_COST = 5  # times the tokens of a cached response, for `no-cache` without an account
MAX_PATH = 100  # characters; checks of longer paths are not memoized
MAX_PATHS = 4096  # of each route
# Where FastAPI looks for the exit stacks of files, of the request and of the handler.
STACKS = ("fastapi_middleware_astack", "fastapi_inner_astack", "fastapi_function_astack")
VARY = (b"vary", b"Authorization, X-API-Key")
PRIVATE = "private, no-store"
# A handler that sets one of these decides itself about caching: its response is not stored.
UNCACHEABLE_HEADERS = {b"set-cookie", b"cache-control"}


class BytesResponse(Response):
    """A response with headers that are encoded already."""

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        self.status_code = status
        self.raw_headers = headers
        self.body = body
        self.background = None


class NotStored(Exception):
    """The handler returned a response that must not be stored."""

    def __init__(self, response: Response, scope: Scope) -> None:
        self.response = response
        self.scope = scope


@dataclass(eq=False)
class CachedHandler:
    """The ASGI application of a cached route: responds from the cache, or runs the handler.

    Whole responses are stored as bytes, so a hit solves no dependency, takes no database connection
    and builds no JSON. The key is made of path and query, the tags are those of the CachePolicy.
    Only responses of status 200 and a raised NotFound are stored: the handler may depend on path
    and query alone, and its response may have neither a stream nor background tasks. Requests with
    an account bypass the cache, and others may with `Cache-Control: no-cache`, at a higher cost of
    the rate limit. See docs/caching.md.
    """

    handler: Handler
    policy: CachePolicy
    rule: RateLimitRule
    type: Any  # what the handler returns
    defaults: set[tuple[str, str]]  # of the query
    parameters: PathParameters

    def __post_init__(self) -> None:
        self._memoized_path = lru_cache(maxsize=MAX_PATHS)(self._canonical_path)
        shape(self.type)  # takes milliseconds: now, not in the first request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        canonical = self._memoized_path if len(path) <= MAX_PATH else self._canonical_path
        key = canonical(path, *scope["path_params"].items())
        await identify(scope)
        directives = parse_directives(scope)
        enforce_limit = start_check(scope, self.rule, BYPASS_COST if directives.bypass else 1)
        if key is None:
            await enforce_limit()
            response = await self._run(scope)
            response.headers.setdefault("Cache-Control", PRIVATE)
        elif directives.has_account or directives.bypass:
            await enforce_limit()
            response = await self._bypass(scope, directives)
        else:
            response = await self._fetch(scope, key, directives, enforce_limit)
        await response(scope, receive, send)

    def _canonical_path(self, path: str, *parameters: tuple[str, str]) -> str | None:
        """The path as a part of the key, where a `?` of its own is encoded.

        None unless its parameters are valid, and spelled as services spell them in tags.
        """
        values = dict(parameters)
        for field in self.parameters:
            value, faults = field.validate(values[field.alias])
            is_canonical = not faults and spelling(value) == values[field.alias]
            del faults  # an error in it has a traceback to this frame: a cycle, with the request
            if not is_canonical:
                return None
        return quote(path)

    async def _fetch(
        self, scope: Scope, path: str, directives: CacheDirectives, enforce_limit: Check
    ) -> Response:
        """`path`: the canonical one."""
        state: HttpState = scope["state"]
        cache = state["cache"]
        text = scope["query_string"].decode("latin-1")
        query = parse_qsl(text, keep_blank_values=True) if text else []
        url = canonical_url(path, set(query) - self.defaults)
        key = f"{fingerprint(cache.release, self.type)}:{url}"
        tags = self.policy.tags_of(scope["path_params"], dict(query))
        load, may_store = partial(self._load, scope), partial(_may_store, scope)
        spec = LoadSpec(key, load, self.policy.lifetime, tags, may_store)
        try:
            result = await cache.fetch(spec, enforce_limit)
        except NotStored as error:
            # A response that another request has loaded is not for this one.
            response = error.response if error.scope is scope else await self._run(scope)
            response.headers.setdefault("Cache-Control", PRIVATE)
            return response
        if result.state != "MISS" or cache.store.shared.connection is not None:
            state["admission"].record_hit(scope)  # after a miss it is stored now
        return self._response_of(result, directives)

    async def _bypass(self, scope: Scope, directives: CacheDirectives) -> Response:
        state: HttpState = scope["state"]
        state["metrics"].of(CacheMetrics).cache_lookups["bypass"].inc()
        control = PRIVATE.encode() if directives.has_account else self.policy.control
        headers = [(b"cache-control", control), VARY, (b"x-cache", b"BYPASS")]
        try:
            response = await self._run(scope)
        except NotFound as error:
            raise NotFound(str(error), _as_text(headers)) from None
        if response.status_code == 200:
            tag = etag(bytes(response.body))
            headers.append((b"etag", tag.encode()))
            if is_listed(tag, directives.if_none_match):
                return BytesResponse(304, headers, b"")
        own = _uncacheable_headers(response)
        headers = [header for header in headers if header[0] not in own]
        response.raw_headers = [*response.raw_headers, *headers]
        return response

    async def _load(self, scope: Scope) -> bytes:
        response = await self._run(scope)
        if response.status_code != 200 or _uncacheable_headers(response):
            raise NotStored(response, scope)
        return pack(response)

    async def _run(self, scope: Scope) -> Response:
        """Run the handler, with exit stacks of its own: those of the request may be closed."""
        state: HttpState = scope["state"]
        async with AsyncExitStack() as stack:
            with state["admission"]:
                return await self.handler(Request({**scope, **dict.fromkeys(STACKS, stack)}))

    def _response_of(self, result: CacheResult, directives: CacheDirectives) -> Response:
        entry, state = result
        cache_headers = [
            (b"cache-control", self.policy.control),
            VARY,
            (b"x-cache", state.encode()),
            (b"age", b"%d" % entry.age),
        ]
        if entry.missing:
            raise NotFound(entry.payload.decode(), _as_text(cache_headers))
        tag, headers, body = unpack(entry.payload)
        cache_headers.append((b"etag", tag))
        if directives.if_none_match and is_listed(tag.decode(), directives.if_none_match):
            return BytesResponse(304, cache_headers, b"")
        length = (b"content-length", b"%d" % len(body))
        return BytesResponse(200, [*headers, length, *cache_headers], body)


async def _may_store(scope: Scope, size: int) -> bool:
    state: HttpState = scope["state"]
    return await state["limiter"].may_store(client_network(scope), size)


def _uncacheable_headers(response: Response) -> set[bytes]:
    return {name for name, _ in response.raw_headers} & UNCACHEABLE_HEADERS


def canonical_url(url: str, query: set[tuple[str, str]]) -> str:
    """One name for one response; `query` is without defaults, its order does not matter.

    Other spellings of a value, such as `limit=020`, are refused before a response is stored.
    """
    if query:
        url += "?" + urlencode(sorted(query))
    return shorten(url)


def _as_text(headers: Headers) -> dict[str, str]:
    return {name.decode().title(): value.decode() for name, value in headers}
