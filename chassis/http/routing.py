from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant, _is_async_gen_callable, _is_gen_callable
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Form
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from chassis.auth.credentials import identify, require_claims, require_session
from chassis.deprecation import Deprecation
from chassis.http.body_limit import (
    GET_OR_HEAD,
    check_containers,
    default_max_body,
    default_max_form,
    limit_body,
)
from chassis.http.cached_handler import PRIVATE, STACKS, CachedHandler
from chassis.http.cached_responses import CachePolicy
from chassis.http.etag import etag, not_modified
from chassis.http.json_body import JSONRequest, use_json_fields
from chassis.http.openapi import announce, problems, sends
from chassis.http.parameters import (
    check_headers,
    path_parameters,
    query_defaults,
    refuse_unknown,
    spelling,
)
from chassis.http.request_state import HttpState
from chassis.limits.incoming_bodies import BufferedBody, with_timeout
from chassis.limits.route_limits import RateLimitRule, start_check

NO_MATCH: tuple[Match, Scope] = (Match.NONE, {})

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class ProbeRoute(APIRoute):
    """A route without limits, for health and metrics.

    Unlike FastAPI's own it also serves HEAD, and compares the literal start of its path before it
    tries the regular expression. It ignores query parameters: load balancers may add some.
    """

    def __init__(self, path: str, *args: Any, **options: Any) -> None:
        super().__init__(path, *args, **options)
        # FastAPI makes the fields of a model at their first use. A request and the thread that
        # builds the document must not both be the first: the latter would fail.
        get_flat_params(self.dependant)
        # Whether it needs no more than Application gives it.
        is_plain = not (_has_exits(self.dependant) or self._is_form())
        self.is_direct = is_plain and options.get("max_body_size") is None
        if self.is_direct:
            self.app = _respond_by(self.get_route_handler())
        self._prefix, self._has_parameters, _ = path.partition("{")
        self.query = query_defaults(self.dependant)
        self._methods = set(self.methods or ())
        if "GET" in self._methods:
            self._methods.add("HEAD")  # the server leaves out the body

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if not scope["root_path"]:
            path: str = scope["path"]
            prefix = self._prefix
            if not self._has_parameters:
                if path != prefix:
                    return NO_MATCH
                match = Match.FULL if scope["method"] in self._methods else Match.PARTIAL
                return match, {"endpoint": self.endpoint, "path_params": {}, "route": self}
            if not path.startswith(prefix):
                return NO_MATCH
        match, child_scope = super().matches(scope)
        if match is Match.PARTIAL and scope["method"] in self._methods:
            return Match.FULL, child_scope
        return match, child_scope

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in self._methods:
            return await super().handle(scope, receive, send)
        await self.app(scope, self.checked(scope, receive), send)

    def _is_form(self) -> bool:
        return self.body_field is not None and isinstance(self.body_field.field_info, Form)

    def checked(self, scope: Scope, receive: Receive) -> Receive:
        """For subclasses: the `receive` for the application; raises an error for a bad request."""
        return receive


class BoundedRequest(JSONRequest):
    """Refuses JSON with too many lists and objects before it is parsed."""

    async def json(self) -> Any:
        check_containers(await self.body())
        return await super().json()


class Route(ProbeRoute):
    """A route of the API: with rate limit, load shedding, body limits and cached responses.

    It checks in this order: method, headers (not of GET and HEAD), the declared size of the body,
    query parameters, the API key, the rate limit, the access token, the body while it is read, the
    concurrency limit; then FastAPI calls the handler. A handler that streams its body passes the
    concurrency limit first. A cached route needs no token; a hit runs no handler and does not count
    as concurrent. Decorators change this: `limited` (chassis/limits/route_limits.py), `cached`
    (cached_responses.py), `max_body` (body_limit.py), `deprecated` (chassis/deprecation.py).
    """

    def __init__(self, path: str, *args: Any, **options: Any) -> None:
        super().__init__(path, *args, **options)
        rule = RateLimitRule("reads" if "GET" in (self.methods or ()) else "writes")
        self.rate_limit_rule: RateLimitRule = getattr(self.endpoint, "rate_limit_rule", rule)
        self.needs_token = _is_marked(self.dependant, "needs_token")
        self.needs_session = _is_marked(self.dependant, "needs_session")
        self.max_body = getattr(
            self.endpoint, "max_body", default_max_form if self._is_form() else default_max_body
        )
        policy: CachePolicy | None = getattr(self.endpoint, "cache_policy", None)
        may_have_body = not GET_OR_HEAD.issuperset(self.methods or ())
        self.responses = problems(429, *([408, 413] if may_have_body else [])) | self.responses
        self.sends_etag = any("ETag" in each.get("headers", {}) for each in self.responses.values())
        if policy is not None:
            self.app = self._cached(policy)
            self.responses |= sends(200, "ETag") | sends(304, "ETag")
            self.responses[304]["description"] = "Not modified since the `ETag` of the request"
        deprecation: Deprecation | None = getattr(self.endpoint, "deprecation", None)
        if deprecation is not None:
            announce(self, deprecation)

    def checked(self, scope: Scope, receive: Receive) -> Receive:
        if scope["method"] not in GET_OR_HEAD:
            check_headers(scope)
            receive = limit_body(scope, receive, self.max_body)
        if scope["query_string"]:
            refuse_unknown(scope, self.query.keys())
        return receive

    def get_route_handler(self) -> Handler:
        handler = super().get_route_handler()
        has_json = use_json_fields(self.dependant)  # replaces the body's fields
        request_class = BoundedRequest if has_json else Request

        async def handle(request: Request) -> Response:
            scope = request.scope
            state: HttpState = scope["state"]
            await identify(scope)
            enforce_limit = start_check(scope, self.rate_limit_rule)
            await enforce_limit()
            if self.needs_token:
                (require_session if self.needs_session else require_claims)(scope)
            admission = state["admission"]
            if scope["method"] in GET_OR_HEAD:
                with admission:
                    response = await handler(request)
            elif self.body_field is None:  # none, or the handler reads it as a stream
                receive = with_timeout(request.receive, admission.bodies.timeout)
                with admission:
                    response = await handler(
                        Request(scope, admission.release_while_receiving(receive))
                    )
            else:
                with BufferedBody(admission.bodies, request.receive) as body:
                    request = request_class(scope, body.receive)
                    await body.read(request)
                    with admission:
                        response = await handler(request)
            response.headers.setdefault("Cache-Control", PRIVATE)
            if self.sends_etag and "ETag" not in response.headers:
                response.headers["ETag"] = etag(bytes(response.body))
            return not_modified(scope, response) or response

        return handle

    def _cached(self, policy: CachePolicy) -> ASGIApp:
        if self.response_model is None:
            raise TypeError(f"{self.path} is cached: annotate what it returns")
        if self.needs_token or self.methods != {"GET"}:
            raise TypeError(f"{self.path} is cached: it must be a GET without an access token")
        defaults = {
            (name, spelling(value)) for name, value in self.query.items() if value is not None
        }
        return CachedHandler(
            super().get_route_handler(),
            policy,
            self.rate_limit_rule,
            self.response_model,
            defaults,
            path_parameters(self.dependant),
        )


def _has_exits(dependant: Dependant) -> bool:
    """Whether something may end after the response: a generator, or a dependency with `yield`."""
    call = dependant.call
    is_generator = _is_gen_callable(call) or _is_async_gen_callable(call)
    return is_generator or any(map(_has_exits, dependant.dependencies))


def _respond_by(handler: Handler) -> ASGIApp:
    """What FastAPI makes of a handler, without a layer for errors, and with one exit stack.

    It closes what the handler has opened before the response is sent.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as stack:
            scope.update(dict.fromkeys(STACKS, stack))
            response = await handler(Request(scope, receive, send))
        await response(scope, receive, send)

    return app


def _is_marked(dependant: Dependant, mark: str) -> bool:
    return any(getattr(d.call, mark, False) or _is_marked(d, mark) for d in dependant.dependencies)
