import re
from base64 import b64encode
from hashlib import sha256
from typing import Any

import httpx2 as httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from app.settings import Settings
from chassis.http.openapi import document_api
from tests.service import create_app

REFUSALS = {"422", "500", "503", "504"}


@pytest.fixture
async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    document: dict[str, Any] = (await client.get("/openapi.json")).json()
    return document


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in document["paths"].values() for operation in path.values()]


async def test_operation_ids_read_as_verb_and_noun(document: dict[str, Any]):
    ids = [operation["operationId"] for operation in operations(document)]

    assert {
        "get_purchases",
        "create_purchase",
        "update_purchase",
        "delete_purchase",
        "put_receipt",
    } <= {*ids}
    assert len(ids) == len({*ids})
    for id in ids:
        assert re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", id)


def test_docstrings_are_summaries_and_descriptions():
    tags = [{"name": name, "description": f"All {name}"} for name in ("things", "others")]
    app = FastAPI(openapi_tags=tags)

    @app.get("/one", tags=["others"])
    async def get_one() -> None:
        """Get a thing."""

    @app.get("/two", tags=["things"])
    async def get_two() -> None:
        """Get two things
        at once.

        Both are new.

        - None is old.
        """

    @app.get("/three", summary="Get three.")
    async def get_three() -> None:
        """What they are."""

    @app.get("/none")
    async def get_none() -> None: ...

    document_api(app)
    document = app.openapi()
    described = {
        id: (operation["get"]["summary"], operation["get"].get("description"))
        for id, operation in document["paths"].items()
    }

    assert described == {
        "/one": ("Get a thing", None),
        "/two": ("Get two things at once", "Both are new.\n\n- None is old."),
        "/three": ("Get three.", "What they are."),
        "/none": ("Get None", None),
    }
    assert document["tags"] == tags


async def test_every_error_is_documented_as_a_problem(document: dict[str, Any]):
    for operation in operations(document):
        errors = {code: r for code, r in operation["responses"].items() if code >= "400"}

        assert errors.keys() >= REFUSALS, operation["operationId"]
        for response in errors.values():
            assert response["content"] == {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            }
    assert {"HTTPValidationError", "ValidationError"}.isdisjoint(document["components"]["schemas"])


async def test_only_what_is_limited_or_cached_says_so(document: dict[str, Any], settings: Settings):
    routes = [route for route in create_app(settings).routes if isinstance(route, APIRoute)]
    cached = {route.path for route in routes if hasattr(route.endpoint, "cache_policy")}
    assert {"/v1/purchases", "/v1/purchases/totals"} <= cached
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert ("429" in operation["responses"]) == path.startswith("/v1"), path
            is_cached = method == "get" and path in cached
            assert ("304" in operation["responses"]) == is_cached, path


async def test_writes_document_what_they_refuse(document: dict[str, Any]):
    update = document["paths"]["/v1/purchases/{purchase_id}"]["patch"]

    assert update["responses"].keys() == {
        *("200", "401", "403", "404", "408", "409", "412", "413", "429"),
        *REFUSALS,
    }
    assert update["security"] == [{"OAuth2PasswordBearer": []}, {"APIKey": []}]
    assert "If-Match" in [parameter["name"] for parameter in update["parameters"]]


async def test_every_schema_has_an_example(document: dict[str, Any]):
    schemas = document["components"]["schemas"]

    def has_example(schema: dict[str, Any]) -> bool:
        if "$ref" in schema:
            return has_example(schemas[schema["$ref"].removeprefix("#/components/schemas/")])
        # An enumeration shows all there is.
        return not {"examples", "enum"}.isdisjoint(schema) or any(
            has_example(field.get("items", field))
            for field in schema.get("properties", {}).values()
        )

    lacking = {name for name, schema in schemas.items() if not has_example(schema)}
    assert lacking <= {"Body_create_tokens"}  # the login form is FastAPI's


async def test_bounds_are_those_of_json_schema(document: dict[str, Any]):
    """Pydantic leaves `ge` and `le` where a validator stands before the bound."""
    keywords: set[str] = set()

    def collect(node: Any) -> None:
        if isinstance(node, dict):
            keywords.update(node)
            node = list(node.values())
        if isinstance(node, list):
            for part in node:
                collect(part)

    collect(document)
    parameters = document["paths"]["/v1/purchases"]["get"]["parameters"]
    schemas = {parameter["name"]: parameter["schema"] for parameter in parameters}

    assert keywords.isdisjoint({"ge", "gt", "le", "lt", "multiple_of"})
    assert (schemas["limit"]["minimum"], schemas["limit"]["maximum"]) == (1, 100)
    assert schemas["payer_id"]["anyOf"][0]["maximum"] == 2**63 - 1


async def test_a_response_that_wants_another_try_says_when(document: dict[str, Any]):
    for operation in operations(document):
        for status in {"429", "503", "504"} & operation["responses"].keys():
            assert operation["responses"][status]["headers"]["Retry-After"]["required"]


async def test_what_may_have_a_body_documents_its_limit(document: dict[str, Any]):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert ("413" in operation["responses"]) == (method != "get"), path


async def test_every_reference_leads_somewhere(document: dict[str, Any]):
    references: list[str] = []

    def collect(node: Any) -> None:
        if isinstance(node, dict):
            references.extend([node["$ref"]] if "$ref" in node else [])
            node = list(node.values())
        if isinstance(node, list):
            for part in node:
                collect(part)

    collect(document)

    schemas = document["components"]["schemas"]
    assert {reference.removeprefix("#/components/schemas/") for reference in references} <= (
        schemas.keys()
    )


async def test_whatever_a_json_body_holds_is_bounded(document: dict[str, Any]):
    """Columns hold so much and no more, and each item of an endless list may be a fault."""
    unbounded: list[str] = []

    def check(schema: dict[str, Any], path: str) -> None:
        for name, field in schema.get("properties", {}).items():
            check(field, f"{path}.{name}")
        if "$ref" in schema:
            name = schema["$ref"].removeprefix("#/components/schemas/")
            check(document["components"]["schemas"][name], f"{path} {name}")
        choices = schema.get("anyOf", [])
        if {"number", "string"} <= {choice.get("type") for choice in choices}:
            return  # a Decimal, whose digits JSON Schema cannot count
        for inner in [*choices, *filter(None, [schema.get("items")])]:
            check(inner, path)
        bounds = {
            "string": {"maxLength", "enum", "const", "format", "pattern"},
            "array": {"maxItems"},
            "integer": {"maximum", "exclusiveMaximum"},
        }.get(schema.get("type", ""))
        if bounds and not bounds & schema.keys():
            unbounded.append(path)

    for operation in operations(document):
        content = operation.get("requestBody", {}).get("content", {})
        if "application/json" in content:
            check(content["application/json"]["schema"], operation["operationId"])

    assert unbounded == []


async def test_docs_page_uses_only_what_the_service_serves(client: httpx.AsyncClient):
    page = await client.get("/docs")
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    responses = [await client.get(f"/{asset}") for asset in assets]

    assert page.status_code == 200
    assert "://" not in page.text
    assert len(assets) == 3
    assert [response.status_code for response in responses] == 3 * [200]
    assert sum(len(response.content) for response in responses) > 1_000_000


async def test_pages_run_no_script_but_their_own(client: httpx.AsyncClient):
    page = await client.get("/docs")
    policy = page.headers["Content-Security-Policy"]
    scripts = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    hashes = {f"'sha256-{b64encode(sha256(s.encode()).digest()).decode()}'" for s in scripts}
    directives = {name: set(values) for name, *values in map(str.split, policy.split(";"))}

    assert len(hashes) == 1
    assert directives["script-src"] == {"'self'", *hashes}
    assert directives["default-src"] == directives["frame-ancestors"] == {"'none'"}
    assert directives["connect-src"] == {"'self'"}
