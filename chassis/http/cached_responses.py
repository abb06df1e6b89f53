"""What a route declares about caching, and what a request asks for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from starlette.types import Scope

from chassis.auth.credentials import valid_claims
from chassis.cache.entry import Lifetime
from chassis.request_context import CREDENTIALS

F = TypeVar("F", bound=Callable[..., Any])
TagOf = Callable[[Mapping[str, str]], str]  # of the query parameters


@dataclass(frozen=True)
class CachePolicy:
    lifetime: Lifetime
    tags: Sequence[str | TagOf]
    control: bytes  # Cache-Control

    def tags_of(self, path: Mapping[str, str], query: Mapping[str, str]) -> list[str]:
        return [tag(query) if callable(tag) else tag.format_map(path) for tag in self.tags]


def cached(
    *,
    ttl: float,
    tags: Sequence[str | TagOf] = (),
    stale: float = 0,
    ahead: float = 0,
    max_age: int | None = None,
    stale_while_revalidate: int | None = None,
) -> Callable[[F], F]:
    """Cache the responses of this handler for `ttl` s, or until one of `tags` is invalidated.

    `tags` may contain path parameters: "order:{order_id}". For `stale` and `ahead` see Lifetime.
    Browsers and CDNs may store a response and revalidate it each time; with `max_age` (s) they
    may use it without.
    """
    control = "public, no-cache"
    if max_age is not None:
        control = f"public, max-age={max_age}"
        if stale_while_revalidate is not None:
            control += f", stale-while-revalidate={stale_while_revalidate}"
    policy = CachePolicy(Lifetime(ttl, stale, ahead), tags, control.encode())

    def mark(handler: F) -> F:
        handler.cache_policy = policy  # type: ignore[attr-defined]
        return handler

    return mark


class CacheDirectives(NamedTuple):
    has_account: bool
    bypass: bool  # `Cache-Control: no-cache` or `no-store`, without an account
    if_none_match: str | None


def parse_directives(scope: Scope) -> CacheDirectives:
    has_credentials = no_cache = False
    if_none_match: str | None = None
    for name, value in scope["headers"]:
        if name in CREDENTIALS:
            has_credentials = True
        elif name == b"cache-control":
            no_cache |= b"no-cache" in value.lower() or b"no-store" in value.lower()
        elif name == b"if-none-match":
            line = value.decode("latin-1")
            # Several lines are one list (RFC 9110, 5.3).
            if_none_match = line if if_none_match is None else f"{if_none_match}, {line}"
    # Invalid credentials are no account: otherwise they would bypass the cache at no extra cost.
    has_account = has_credentials and valid_claims(scope) is not None
    return CacheDirectives(has_account, no_cache and not has_account, if_none_match)
