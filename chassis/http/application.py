"""The application: FastAPI with fewer layers around a request, and with one list of routes."""

from collections.abc import Sequence
from inspect import signature
from typing import Any, Protocol

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.routing import APIRoute, APIRouter
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from chassis.auth.credentials import FindKey
from chassis.http.middleware import RequestMiddleware
from chassis.http.routing import ProbeRoute
from chassis.limits.settings import RequestSettings
from chassis.problems.handlers import add_error_handlers
from chassis.telemetry.settings import LogSettings, MetricsSettings
from chassis.telemetry.tracing import is_traced


class HasGroups(Protocol):
    request: RequestSettings
    log: LogSettings
    metrics: MetricsSettings


class Application(FastAPI):
    """FastAPI within RequestMiddleware, with our error handlers, and at less cost for our routes.

    It finds them by the start of the path instead of trying each, and calls them without further
    middleware: RequestMiddleware handles their errors. All other routes, and requests that no route
    matches, are FastAPI's as ever. See docs/decisions/0023-fewer-layers.md.
    """

    def __init__(
        self, settings: HasGroups, *, find_key: FindKey | None = None, **options: Any
    ) -> None:
        """`find_key`: looks API keys up, if there are any; `options`: those of FastAPI."""
        super().__init__(**options)
        self.add_middleware(
            RequestMiddleware,
            request=settings.request,
            log=settings.log,
            metrics_port=settings.metrics.port,
            find_key=find_key,
        )
        add_error_handlers(self)

    def build_middleware_stack(self) -> ASGIApp:
        if is_traced() or self.max_body_size is not None:
            return super().build_middleware_stack()
        self._index = RouteIndex(self.router.routes)
        app: ASGIApp = AsyncExitStackMiddleware(self.router)
        handlers = {**self.exception_handlers}
        for kind in (Exception, 500):  # left to RequestMiddleware, which logs and reports
            handlers.pop(kind, None)
        self._others = ExceptionMiddleware(app, handlers=handlers)
        app = self._dispatch
        for kind, arguments, options in reversed(self.user_middleware):
            app = kind(app, *arguments, **options)
        return app

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["root_path"]:
            for route in self._index.candidates(scope["path"]):
                match, child_scope = route.matches(scope)
                if match is Match.FULL:
                    if isinstance(route, ProbeRoute) and route.is_direct:
                        scope.update(child_scope)
                        scope["router"] = self.router
                        return await route.handle(scope, receive, send)
                    break
        await self._others(scope, receive, send)


class RouteIndex:
    """Routes by the segments that all their paths begin with."""

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        """`routes` may grow."""
        self._routes = routes
        self._size = -1

    def candidates(self, path: str) -> Sequence[BaseRoute]:
        """The routes that may match, in their order."""
        if len(self._routes) != self._size:
            self._build()
        segments = path.split("/", self._depth)[: self._depth]
        while (found := self._by_start.get("/".join(segments))) is None:
            segments.pop()
        return found

    def _build(self) -> None:
        starts = [(_start(route), route) for route in self._routes]
        self._by_start = {
            start: [route for other, route in starts if f"{start}/".startswith(f"{other}/")]
            for start in {"", *(start for start, _ in starts)}
        }
        self._depth = 1 + max(start.count("/") for start in self._by_start)
        self._size = len(self._routes)


def _start(route: BaseRoute) -> str:
    if not isinstance(route, APIRoute):
        return ""
    literal, parameter, _ = route.path.partition("{")
    return literal.rpartition("/")[0] if parameter else literal


def include(app: FastAPI, router: APIRouter) -> None:
    """Add the routes of `router` to the application's own list.

    FastAPI's `include_router` keeps routers apart, and matches a path twice: to find the router,
    and to find the route in it. docs/decisions/0005-one-list-of-routes.md
    """
    add = app.router.add_api_route
    for route in router.routes:
        if not isinstance(route, APIRoute):
            raise TypeError(f"{route} is not a route of FastAPI: add it to the application itself")
        options = {name: getattr(route, name) for name in _OPTIONS if hasattr(route, name)}
        add(**options, route_class_override=type(route))


_OPTIONS = set(signature(APIRouter.add_api_route).parameters) - {"self", "route_class_override"}
