"""JSON bodies, validated by pydantic's strict JSON mode instead of from Python objects.

FastAPI validates the result of `json.loads`, from which a strict model accepts no string for a
Decimal, a datetime, an enum or a UUID. JSON mode does, and still refuses `"1"` for a number, `1.0`
for an integer and a number for a time. Of duplicate names the last one counts.
"""

import codecs
import json
import re
from decimal import Decimal
from functools import cached_property
from typing import Any, get_args

import orjson
from fastapi import Request, params
from fastapi._compat import ModelField
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json

Loc = tuple[int | str, ...]
Fault = dict[str, Any]

# A body with more members is searched for unknown fields before pydantic reads it, which takes
# 1.5 µs for each of them.
MANY_MEMBERS = 1000
MAX_UNKNOWN = 19  # further ones are counted, not listed
MAX_FAULTS = 10_000  # more, of all kinds, are only counted
NOT_JSON = "Send JSON, with Content-Type: application/json"
# JSON mode reads a number with a fraction as a float, which is exact for up to 15 digits.
_LONG_NUMBER = re.compile(rb"[0-9.]{17}|[0-9][eE][+-]?[0-9]{3}")


class JSONText:
    """Unparsed JSON in place of the parsed body that FastAPI passes to its fields."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def get(self, name: str, default: Any) -> Any:
        """For handlers with several body parameters; AttributeError if it is not an object."""
        member = self._members.get(name, default)
        return member if member is default else JSONText(orjson.dumps(member))

    @cached_property
    def _members(self) -> Any:
        try:
            from_json(self.raw)
        except ValueError as error:
            fault = {"type": "json_invalid", "loc": ("body",), "msg": f"Invalid JSON: {error}"}
            raise RequestValidationError([fault]) from None
        verbatim = orjson.Fragment  # keeps all digits
        return json.loads(
            self.raw, parse_float=verbatim, parse_int=verbatim, parse_constant=verbatim
        )


class JSONRequest(Request):
    async def json(self) -> Any:
        body = await self.body()
        return JSONText(body.removeprefix(codecs.BOM_UTF8))


class JSONField(ModelField):
    """A body parameter that reads JSONText."""

    def validate(
        self, value: Any, values: dict[str, Any] | None = None, *, loc: Loc = ()
    ) -> tuple[Any, list[Fault]]:
        if not isinstance(value, JSONText):
            result, faults = super().validate(value, values or {}, loc=loc)
            if faults and isinstance(value, bytes):  # FastAPI takes no other type for JSON
                faults = [{"type": "content_type", "loc": loc, "msg": NOT_JSON}]
            return result, faults
        raw, faults = value.raw, []
        if raw.count(b":") > MANY_MEMBERS:
            raw, unknown = _without_unknown(self.field_info.annotation, raw)
            faults = _unknown_faults(unknown, loc)
        try:
            return self._read(raw), faults
        except ValidationError as error:
            return None, _faults(error, loc) + faults

    def _read(self, raw: bytes) -> Any:
        result = self._type_adapter.validate_json(raw)
        if _LONG_NUMBER.search(raw):
            # It is valid; validate once more from numbers with all their digits.
            exact = json.loads(raw, parse_float=_exact)
            result = self._type_adapter.validate_python(exact, strict=False)
        return result


def use_json_fields(dependant: Dependant) -> bool:
    """Make its body parameters read JSONText; False if it has none or a form."""
    json = False
    for at, field in enumerate(dependant.body_params):
        if not isinstance(field.field_info, params.Form):
            dependant.body_params[at] = JSONField(
                field.field_info, field.name, field.mode, field.config
            )
            json = True
    return any([json, *(use_json_fields(inner) for inner in dependant.dependencies)])


def _exact(literal: str) -> float | Decimal:
    number = float(literal)
    return number if repr(number) == literal else Decimal(literal)


def _faults(error: ValidationError, loc: Loc) -> list[Fault]:
    if (count := error.error_count()) > MAX_FAULTS:
        return [{"type": "too_many_faults", "loc": loc, "msg": f"Has {count} faults"}]
    faults: list[Any] = error.errors(include_url=False, include_input=False)
    return [{**fault, "loc": (*loc, *fault["loc"])} for fault in faults]


def _unknown_faults(names: list[str], loc: Loc) -> list[Fault]:
    faults = [
        {"type": "extra_forbidden", "loc": (*loc, name), "msg": "Extra inputs are not permitted"}
        for name in names[:MAX_UNKNOWN]
    ]
    if len(names) > MAX_UNKNOWN:
        message = f"Has {len(names)} unknown fields, of which the first are listed"
        faults.insert(0, {"type": "extra_forbidden", "loc": loc, "msg": message})
    return faults


def _without_unknown(annotation: Any, raw: bytes) -> tuple[bytes, list[str]]:
    """An object without the members that its model refuses, and their names."""
    model = next(filter(_is_closed, (annotation, *get_args(annotation))), None)
    try:
        members = from_json(raw)
    except ValueError:
        return raw, []
    if model is None or not isinstance(members, dict):
        return raw, []
    known = {*model.model_fields, *_aliases(model)}
    unknown = [name for name in members if name not in known]
    if not unknown:
        return raw, []
    return to_json({name: members[name] for name in known & members.keys()}), unknown


def _is_closed(annotation: Any) -> bool:
    """Whether it is a model that forbids unknown fields and has one name for each field."""
    return (
        isinstance(annotation, type)
        and issubclass(annotation, BaseModel)
        and annotation.model_config.get("extra") == "forbid"
        and all(isinstance(alias, str | None) for alias in _aliases(annotation))
    )


def _aliases(model: type[BaseModel]) -> list[Any]:
    return [field.validation_alias for field in model.model_fields.values()]
