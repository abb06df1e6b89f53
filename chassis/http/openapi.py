"""The OpenAPI document: summaries, tags, problems, headers and deprecated routes."""

import threading
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from chassis.deprecation import Deprecation
from chassis.problems.schema import Problem
from chassis.request_context import current_request

REF = "#/components/schemas/{model}"
Responses = dict[int | str, dict[str, Any]]  # of OpenAPI


def problems(*statuses: int) -> Responses:
    """The `responses=` of a route with these errors and those that every route has."""
    return {status: _problem(status) for status in sorted({*statuses, 422, 500, 503, 504})}


def sends(status: int, *headers: str) -> Responses:
    """The part of `responses=` that documents these headers of a status.

    An `ETag` that the handler does not set is that of the body.
    """
    return {status: {"headers": {name: _HEADERS[name] for name in headers}}}


def announce(route: APIRoute, deprecation: Deprecation) -> None:
    """In the document and, by the middleware, in each response: errors and 304 included."""
    route.deprecated = True
    route.openapi_extra = {**(route.openapi_extra or {}), **deprecation.extension}
    responses: Responses = {route.status_code or 200: {}, **route.responses}
    route.responses = {
        status: {**response, "headers": response.get("headers", {}) | deprecation.documented}
        for status, response in responses.items()
    }
    fields = [(name.lower().encode(), text.encode()) for name, text in deprecation.fields.items()]
    methods = {*(route.methods or ())} | ({"HEAD"} if "GET" in (route.methods or ()) else set())
    handle = route.handle

    async def handle_deprecated(scope: Scope, receive: Receive, send: Send) -> None:
        request = current_request.get()
        if request is not None and scope["method"] in methods:
            request.response_headers += fields
        await handle(scope, receive, send)

    # Replaced in this route alone: others need not even ask whether they are deprecated.
    route.handle = handle_deprecated  # type: ignore[method-assign]


def document_api(app: FastAPI) -> None:
    """Describe operations by docstrings, and add the schema of problems.

    FastAPI can only refer to models as `application/json`.
    """
    building = threading.Lock()  # two at once fail: get_openapi is not thread-safe

    def openapi() -> dict[str, Any]:
        with building:
            if app.openapi_schema is None:
                for route in app.routes:
                    if isinstance(route, APIRoute):
                        _summarize(route)
                document = get_openapi(
                    title=app.title,
                    version=app.version,
                    summary=app.summary,
                    tags=app.openapi_tags,
                    routes=app.routes,
                )
                schema = Problem.model_json_schema(ref_template=REF)
                schemas = document.setdefault("components", {}).setdefault("schemas", {})
                schemas |= {**schema.pop("$defs"), "Problem": schema}
                app.openapi_schema = document
            return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _summarize(route: APIRoute) -> None:
    """The first paragraph of the docstring is the summary, and the rest the description.

    FastAPI takes the name of the function for a summary, as in "Get Order".
    """
    if route.summary is None:
        paragraph, _, route.description = route.description.partition("\n\n")
        route.summary = " ".join(paragraph.split()).removesuffix(".")


def _problem(status: int) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": REF.format(model="Problem")}}}
    phrase = _NEW_PHRASES.get(status) or HTTPStatus(status).phrase
    problem = {"description": phrase, "content": content}
    header = _PROBLEM_HEADERS.get(status)
    return problem if header is None else problem | sends(status, header)[status]


def _header(description: str, type: str = "string") -> dict[str, Any]:
    return {"required": True, "description": description, "schema": {"type": type}}


_HEADERS = {
    "Accept": _header("Media types that are supported"),
    "ETag": _header("Identifies this content, for `If-None-Match` and `If-Match`"),
    "Location": _header("Its URL"),
    "Retry-After": _header("Time to wait before the next attempt, s", "integer"),
    "WWW-Authenticate": _header("`Bearer`, and whether the token is invalid"),
}
_PROBLEM_HEADERS = {
    401: "WWW-Authenticate",
    415: "Accept",
    429: "Retry-After",
    503: "Retry-After",
    504: "Retry-After",
}
# Of RFC 9110, which Python has since 3.13: the document must be the same in each version.
_NEW_PHRASES = {413: "Content Too Large", 422: "Unprocessable Content"}
