"""Parameters of paths, queries and headers: what a route declares, and what it refuses."""

from collections import Counter
from collections.abc import Set
from itertools import chain
from typing import Any
from urllib.parse import unquote_plus, unquote_to_bytes

from fastapi._compat import ModelField
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from pydantic_core import PydanticUndefined, to_json
from starlette.datastructures import QueryParams
from starlette.types import Scope

from chassis.errors import Invalid

MAX_QUERY = 32_768  # bytes
# Headers that unsafe requests may have once: which of two values counts would not be clear.
SINGLE = {b"authorization", b"content-type", b"idempotency-key"}
# Headers of what would be taken for the whole body, as it is (RFC 9110, 8.4 and 14.5).
OTHER_BODIES = {
    b"content-encoding": "Send the body as it is: it is not decoded",
    b"content-range": "Send the whole: a part of it cannot be changed",
}

PathParameters = list[ModelField]


def query_defaults(dependant: Dependant) -> dict[str, Any]:
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


def path_parameters(dependant: Dependant) -> PathParameters:
    inner = [path_parameters(dependency) for dependency in dependant.dependencies]
    return [*dependant.path_params, *chain.from_iterable(inner)]


def check_headers(scope: Scope) -> None:
    """Of an unsafe request; raises Invalid."""
    single = []
    for name, value in scope["headers"]:
        if name in SINGLE:
            single.append(name)
        elif name in OTHER_BODIES and value.lower() != b"identity":
            raise Invalid(OTHER_BODIES[name], ("header", name.decode().title()))
    for name, count in Counter(single).items():
        if count > 1:
            raise Invalid("Given more than once", ("header", name.decode().title()))


def refuse_unknown(scope: Scope, known: Set[str]) -> None:
    if len(scope["query_string"]) > MAX_QUERY:
        raise Invalid(f"Has more than {MAX_QUERY} bytes", ("query",))
    if not _is_utf8(scope["query_string"]):
        part = next(part for part in scope["query_string"].split(b"&") if not _is_utf8(part))
        name = unquote_plus(part.partition(b"=")[0].decode("latin-1"))
        raise Invalid("Is not UTF-8", ("query", name))
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


def _is_utf8(encoded: bytes) -> bool:
    try:
        unquote_to_bytes(encoded).decode()
    except UnicodeDecodeError:
        return False
    return True


def spelling(value: Any) -> str:
    """The canonical text of a value in URLs and tags: its JSON without quotes."""
    return str(value) if isinstance(value, str) else to_json(value).decode().strip('"')
