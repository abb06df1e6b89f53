"""Router and route of the API: quick to pass over, strict, and documented in how they fail."""

from collections.abc import Callable, Coroutine, Iterator
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, APIRouter
from pydantic import BaseModel
from starlette.routing import Match
from starlette.types import Scope

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Route(APIRoute):
    """Refuses query parameters that it does not declare: a misspelt filter must not pass."""

    def get_route_handler(self) -> Handler:
        handler = super().get_route_handler()
        known = set(_query_names(self.dependant))

        async def strict_handler(request: Request) -> Response:
            if request.scope["query_string"]:
                _refuse_unknown(request, known)
            return await handler(request)

        return strict_handler


class Router(APIRouter):
    """Looks at its routes only for paths below its prefix.

    FastAPI asks every included router in turn, and each asks every route of its own.
    """

    def __init__(self, prefix: str = "", **options: Any) -> None:
        super().__init__(prefix=prefix, **{"route_class": Route} | options)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if not scope["root_path"] and not scope["path"].startswith(self.prefix):
            return Match.NONE, {}
        return super().matches(scope)


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
