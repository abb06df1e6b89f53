"""The OpenAPI document: FastAPI's, plus the schema of our problems."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.schemas.problem import Problem

REF = "#/components/schemas/{model}"


def document_problems(app: FastAPI) -> None:
    """FastAPI can refer to a model only under `application/json`; our errors are problems."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _with_problem(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _with_problem(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, summary=app.summary, routes=app.routes
    )
    schema = Problem.model_json_schema(ref_template=REF)
    document["components"]["schemas"] |= {**schema.pop("$defs"), "Problem": schema}
    return document
