"""Routes of the API: found quickly, strict, and documented in how they fail."""

from collections.abc import Callable, Coroutine, Iterator
from http import HTTPStatus
from inspect import signature
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, APIRouter
from pydantic import BaseModel
from starlette.routing import Match
from starlette.types import Scope

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Route(APIRoute):
    """Refuses query parameters that it does not declare: a misspelt filter must not pass."""

    def __init__(self, path: str, *args: Any, **options: Any) -> None:
        super().__init__(path, *args, **options)
        self._start = path.partition("{")[0]

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        # Most routes are not the one, and that shows at their start already.
        if not scope["root_path"] and not scope["path"].startswith(self._start):
            return Match.NONE, {}
        return super().matches(scope)

    def get_route_handler(self) -> Handler:
        handler = super().get_route_handler()
        known = set(_query_names(self.dependant))

        async def strict_handler(request: Request) -> Response:
            if request.scope["query_string"]:
                _refuse_unknown(request, known)
            return await handler(request)

        return strict_handler


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


def _query_names(dependant: Dependant) -> Iterator[str]:
    for field in dependant.query_params:
        model = field.field_info.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            yield from model.model_fields
        else:
            yield field.alias
    for dependency in dependant.dependencies:
        yield from _query_names(dependency)


def _refuse_unknown(request: Request, known: set[str]) -> None:
    errors = [
        {
            "type": "extra_forbidden",
            "loc": ("query", name),
            "msg": f"Unknown parameter; known are: {', '.join(sorted(known)) or 'none'}",
        }
        for name in request.query_params
        if name not in known
    ]
    if errors:
        raise RequestValidationError(errors)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route that may answer with these, or as every route may."""
    return {
        int(status): {
            "description": HTTPStatus(status).phrase,
            "content": {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            },
        }
        for status in sorted({*statuses, 422, 500, 503, 504})
    }


def etag(version: int) -> str:
    return f'"{version}"'
