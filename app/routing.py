"""Routes of the API: found quickly, strict, and documented in how they fail."""

from collections import Counter
from collections.abc import Callable, Coroutine, Set
from functools import lru_cache
from http import HTTPStatus
from inspect import signature
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi._compat import ModelField
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.params import Form
from fastapi.routing import APIRoute, APIRouter
from pydantic import BaseModel
from pydantic_core import PydanticUndefined, to_json
from starlette.datastructures import QueryParams
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from app.access_tokens import require_claims
from app.body_limit import BODILESS as SAFE
from app.body_limit import check_containers, limit_body, usual, usual_form
from app.cache import Admit, admit_all, fingerprint
from app.cached_responses import CachedHandler, Caching
from app.errors import Forbidden, Invalid, TooManyRequests
from app.etag import is_known
from app.json_body import JSONRequest, read_json
from app.rate_limit import PolicyName, RateLimiter, buckets_of
from app.request_context import current_request
from app.signed_urls import NOT_SIGNED

MAX_QUERY = 32_768  # bytes
MAX_PATH = 100  # characters of a path that is kept in memory
MAX_PATHS = 4096  # for each route
# Of a change, which nobody should take for another one.
SINGLE = {b"authorization", b"content-type", b"idempotency-key"}

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Responses = dict[int | str, dict[str, Any]]  # as OpenAPI documents them
F = TypeVar("F", bound=Callable[..., Any])


class Policed(NamedTuple):
    """What `limited` says of a route."""

    policy: PolicyName
    cost: int = 1


def limited(policy: PolicyName, cost: int = 1) -> Callable[[F], F]:
    """Count this handler's requests by another policy, or as more than one."""

    def mark(handler: F) -> F:
        handler.policed = Policed(policy, cost)  # type: ignore[attr-defined]
        return handler

    return mark


class ProbeRoute(APIRoute):
    """Answers HEAD as well as GET, and refuses query parameters that it does not declare.

    It does so whatever the load, and as often as it is asked: of health and metrics.
    """

    def __init__(self, path: str, *args: Any, **options: Any) -> None:
        super().__init__(path, *args, **options)
        self._start, self._varies, _ = path.partition("{")
        self.query = query_defaults(self.dependant)
        self._methods = set(self.methods or ())
        if "GET" in self._methods:
            self._methods.add("HEAD")  # the server leaves out the body

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if not scope["root_path"]:
            # Most routes are not the one, and that shows without a regular expression.
            path: str = scope["path"]
            if not (path.startswith(self._start) if self._varies else path == self._start):
                return Match.NONE, {}
        match, child_scope = super().matches(scope)
        if match is Match.PARTIAL and scope["method"] in self._methods:
            return Match.FULL, child_scope
        return match, child_scope

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in self._methods:
            return await super().handle(scope, receive, send)
        if scope["query_string"]:
            self.check_names(scope)
        await self.app(scope, receive, send)

    def check_names(self, scope: Scope) -> None:
        """Refuse parameters that this does not know."""
        _refuse_unknown(scope, self.query.keys())


class BoundedRequest(JSONRequest):
    async def json(self) -> Any:
        check_containers(await self.body())
        return await super().json()


class Route(ProbeRoute):
    """Also keeps to what a client may ask for and a worker can do, and answers from the cache.

    See `limited`; `cached` in app/cached_responses.py, `max_body` in body_limit.py.
    """

    def __init__(self, path: str, *args: Any, **options: Any) -> None:
        super().__init__(path, *args, **options)
        policed = Policed("reads" if "GET" in (self.methods or ()) else "writes")
        self.policed: Policed = getattr(self.endpoint, "policed", policed)
        self.needs_token = _needs_token(self.dependant)
        is_form = self.body_field and isinstance(self.body_field.field_info, Form)
        self.max_body = getattr(self.endpoint, "max_body", usual_form if is_form else usual)
        caching: Caching | None = getattr(self.endpoint, "caching", None)
        may_have_body = not SAFE.issuperset(self.methods or ())
        self.responses = problems(429, *([413] if may_have_body else [])) | self.responses
        if caching:
            self.app = self._cached(caching)
            self.responses |= sends(200, "ETag") | sends(304, "ETag")
            self.responses[304]["description"] = "What you have still holds"

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in SAFE:
            _refuse_repeated(scope)
        await super().handle(scope, limit_body(scope, receive, self.max_body), send)

    def get_route_handler(self) -> Handler:
        handler = super().get_route_handler()
        takes_json = read_json(self.dependant)

        async def work(request: Request) -> Response:
            await ask(request.scope, self.policed)()
            if self.needs_token:
                require_claims(request.scope)
            if takes_json:
                request = BoundedRequest(request.scope, request.receive, request._send)
            with request.scope["state"]["workload"]:
                response = await handler(request)
            response.headers.setdefault("Cache-Control", "private, no-store")
            return _unless_known(request, response)

        return work

    def _cached(self, caching: Caching) -> ASGIApp:
        """In place of FastAPI's application for a route, which gets ready what a hit needs not."""
        if self.response_model is None:
            raise TypeError(f"{self.path} is cached: annotate what it returns")
        said_anyway = {
            (name, spelling(value)) for name, value in self.query.items() if value is not None
        }
        version = fingerprint(self.response_model)
        cached = CachedHandler(super().get_route_handler(), caching, version, said_anyway)
        parameters = path_parameters(self.dependant)

        def is_possible(*values: str) -> bool:
            """Spelt otherwise than a service spells it in tags, an id is not cached."""
            fields = zip(parameters, values, strict=True)
            results = [(value, *field.validate(value)) for field, value in fields]
            return all(not faults and spelling(read) == value for value, read, faults in results)

        remembered = lru_cache(maxsize=MAX_PATHS)(is_possible)

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            given = scope["path_params"]
            look_up = remembered if len(scope["path"]) <= MAX_PATH else is_possible
            possible = look_up(*[given[field.alias] for field in parameters])
            response = await cached(scope, ask(scope, self.policed), possible)
            await response(scope, receive, send)

        return answer


class SignedRoute(Route):
    """What is asked for is signed: a name that is not known was not in it."""

    def check_names(self, scope: Scope) -> None:
        try:
            super().check_names(scope)
        except (RequestValidationError, Invalid):
            raise Forbidden(NOT_SIGNED) from None


def ask(scope: Scope, policed: Policed) -> Admit:
    """Ask the limiter; what is given back waits for its word, and raises TooManyRequests.

    Whatever else is asked of Redis before that travels with the question.
    """
    limiter: RateLimiter = scope["state"]["limiter"]
    if not limiter.enabled:
        return admit_all
    buckets = buckets_of(scope, policed.policy)
    asked = [limiter.ask(policy, caller, policed.cost) for policy, caller in buckets]

    async def admit() -> None:
        decisions = [await limiter.decide(each) for each in asked]
        decision = next((each for each in decisions if not each.allowed), decisions[0])
        if (context := current_request.get()) is not None:
            context.answer_headers += decision.headers()
        if not decision.allowed:
            raise TooManyRequests(decision.policy.name, decision.retry_after)

    return admit


def include(app: FastAPI, router: APIRouter) -> None:
    """Put the routes of `router` into the application's own list.

    FastAPI's `include_router` keeps routers apart: it asks one after the other, and matches the
    path once to find the router and once more within it.
    """
    add = app.router.add_api_route
    for route in router.routes:
        if not isinstance(route, APIRoute):
            raise TypeError(f"{route} is no route of FastAPI: add it to the application itself")
        options = {name: getattr(route, name) for name in _OPTIONS if hasattr(route, name)}
        add(**options, route_class_override=type(route))


_OPTIONS = set(signature(APIRouter.add_api_route).parameters) - {"self", "route_class_override"}


def query_defaults(dependant: Dependant) -> dict[str, Any]:
    """Every query parameter, with its default or None."""
    defaults: dict[str, Any] = {}
    for field in dependant.query_params:
        model = field.field_info.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            defaults |= {name: info.default for name, info in model.model_fields.items()}
        else:
            defaults[field.alias] = field.default
    for dependency in dependant.dependencies:
        defaults |= query_defaults(dependency)
    return {name: None if value is PydanticUndefined else value for name, value in defaults.items()}


def path_parameters(dependant: Dependant) -> list[ModelField]:
    inner = [path_parameters(dependency) for dependency in dependant.dependencies]
    return [*dependant.path_params, *chain.from_iterable(inner)]


def _needs_token(dependant: Dependant) -> bool:
    inner = dependant.dependencies
    return any(getattr(each.call, "needs_token", False) or _needs_token(each) for each in inner)


def _unless_known(request: Request, response: Response) -> Response:
    """304 in place of what the client has."""
    tag = response.headers.get("ETag")
    if tag is None or response.status_code != 200 or request.method not in SAFE:
        return response
    if not is_known(request.scope, tag):
        return response
    kept = {name: response.headers[name] for name in ("ETag", "Cache-Control")}
    return Response(status_code=304, headers=kept)


def _refuse_repeated(scope: Scope) -> None:
    names = [name for name, _ in scope["headers"] if name in SINGLE]
    for name, count in Counter(names).items():
        if count > 1:
            raise Invalid("Given more than once", ("header", name.decode().title()))


def spelling(value: Any) -> str:
    """How a URL or a tag says it: as JSON does, without quotes."""
    return str(value) if isinstance(value, str) else to_json(value).decode().strip('"')


def _refuse_unknown(scope: Scope, known: Set[str]) -> None:
    if len(scope["query_string"]) > MAX_QUERY:
        raise Invalid(f"Has more than {MAX_QUERY} bytes", ("query",))
    errors = []
    given = QueryParams(scope["query_string"])
    unknown = f"Unknown parameter; known are: {', '.join(sorted(known)) or 'none'}"
    for name, count in Counter(name for name, _ in given.multi_items()).items():
        if name not in known:
            errors.append({"type": "extra_forbidden", "loc": ("query", name), "msg": unknown})
        elif count > 1:
            message = "Given more than once"
            errors.append({"type": "repeated", "loc": ("query", name), "msg": message})
    if errors:
        raise RequestValidationError(errors)


def problems(*statuses: int) -> Responses:
    """The `responses=` of a route that may answer with these, or as every route may."""
    return {status: _problem(status) for status in sorted({*statuses, 422, 500, 503, 504})}


def sends(status: int, *headers: str) -> Responses:
    """The part of `responses=` that promises these headers with a status."""
    return {status: {"headers": {name: _HEADERS[name] for name in headers}}}


def _problem(status: int) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    problem = {"description": HTTPStatus(status).phrase, "content": content}
    header = _PROBLEM_HEADERS.get(status)
    return problem if header is None else problem | sends(status, header)[status]


def _header(description: str, type: str = "string") -> dict[str, Any]:
    return {"required": True, "description": description, "schema": {"type": type}}


_HEADERS = {
    "Accept": _header("Media types that are supported"),
    "ETag": _header("Names this content, for `If-None-Match` and `If-Match`"),
    "Location": _header("Where it is"),
    "Retry-After": _header("Time to wait before another try, s", "integer"),
    "WWW-Authenticate": _header("`Bearer`, and whether the token is invalid"),
}
_PROBLEM_HEADERS = {
    401: "WWW-Authenticate",
    415: "Accept",
    429: "Retry-After",
    503: "Retry-After",
    504: "Retry-After",
}
