"""What a changed schema does to clients that were made for the old one.

What a client sends must still be accepted, so in requests the new schema must contain the old one.
What it receives must be what it knows, so in responses the old one must contain the new one. Only
the keywords that the document of this service has are compared.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Schema = dict[str, Any]
Direction = Literal["requests", "responses"]

MAX_KEYWORDS = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
MIN_KEYWORDS = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
EXACT_KEYWORDS = ("pattern", "multipleOf", "uniqueItems")
_REF = "#/components/schemas/"


class Finding(NamedTuple):
    """`subject` is an operation, or a component with the direction in which it is used."""

    subject: str
    what: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.what}".replace("`", "'")


@dataclass
class Comparison:
    """Of two documents' schemas, in one direction."""

    old: Schema
    new: Schema
    direction: Direction
    seen: set[tuple[str, str]] = field(default_factory=set)

    def compare(self, old: Schema, new: Schema, subject: str, path: str) -> Iterator[Finding]:
        """`path`: of the value within the subject."""
        names = _name(old), _name(new)
        if names[0] and names[1]:
            if names in self.seen:  # compared already, or refers to itself
                return
            self.seen.add((names[0], names[1]))
            subject, path = f"{names[1]} in {self.direction}", ""
        before, after = _variants(old, self.old), _variants(new, self.new)
        of_request = self.direction == "requests"
        inner, outer = (before, after) if of_request else (after, before)
        for variant in inner:
            match = _match(variant, outer)
            if match is None:
                yield Finding(subject, self._mismatch(path, variant, before, after))
                continue
            pair = (variant, match) if of_request else (match, variant)
            yield from self._compare_variant(*pair, subject, path)

    def _mismatch(
        self, path: str, variant: Schema, before: list[Schema], after: list[Schema]
    ) -> str:
        kind = _kind(variant)
        others = [[each for each in side if _kind(each) != "null"] for side in (before, after)]
        where = path or "it"
        if kind != "null" and all(len(each) == 1 for each in others):
            return f"{where} is {_kind(others[1][0])} instead of {_kind(others[0][0])}"
        if self.direction == "requests":
            return f"{where} may no longer be {kind}"
        return f"{where} may be {kind}"

    def _compare_variant(
        self, old: Schema, new: Schema, subject: str, path: str
    ) -> Iterator[Finding]:
        where = path or "it"
        for what in (*self._values(old, new), *self._bounds(old, new)):
            yield Finding(subject, f"{where} {what}")
        if "items" in old and "items" in new:
            yield from self.compare(old["items"], new["items"], subject, f"{path}[]")
        extra = old.get("additionalProperties"), new.get("additionalProperties")
        if isinstance(extra[0], dict) and isinstance(extra[1], dict):
            yield from self.compare(extra[0], extra[1], subject, f"{path}{{}}")
        elif self.direction == "requests" and extra[1] is False and extra[0] is not False:
            yield Finding(subject, f"{where} may no longer have other properties")
        yield from self._properties(old, new, subject, f"{path}." if path else "")

    def _values(self, old: Schema, new: Schema) -> Iterator[str]:
        """Formats and enumerations."""
        inner, outer = (old, new) if self.direction == "requests" else (new, old)
        if "format" in outer and inner.get("format") != outer["format"]:
            yield f"has the format {new.get('format')} instead of {old.get('format')}"
        allowed, values = _enum(outer), _enum(inner)
        if allowed is None:
            return
        if values is None:
            is_request = self.direction == "requests"
            yield f"must be one of {_list(allowed)}" if is_request else "may be any value"
        elif more := [value for value in values if value not in allowed]:
            verb = "may no longer be" if self.direction == "requests" else "may be"
            yield f"{verb} {_list(more)}"

    def _bounds(self, old: Schema, new: Schema) -> Iterator[str]:
        """Only of requests: a client has no memory of a bound of what it receives."""
        if self.direction == "responses":
            return
        for names, is_narrower in ((MAX_KEYWORDS, float.__lt__), (MIN_KEYWORDS, float.__gt__)):
            for name in names:
                if name in new and (
                    name not in old or is_narrower(float(new[name]), float(old[name]))
                ):
                    yield f"has {name} {new[name]} instead of {old.get(name, 'none')}"
        for name in EXACT_KEYWORDS:
            if name in new and new[name] != old.get(name):
                yield f"has {name} {new[name]} instead of {old.get(name, 'none')}"

    def _properties(self, old: Schema, new: Schema, subject: str, path: str) -> Iterator[Finding]:
        before, after = old.get("properties", {}), new.get("properties", {})
        needed, needs = set(old.get("required", ())), set(new.get("required", ()))
        for name, schema in before.items():
            if name not in after:
                yield Finding(subject, f"{path}{name} is removed")
                continue
            if self.direction == "requests" and name in needs - needed:
                yield Finding(subject, f"{path}{name} is required")
            if self.direction == "responses" and name in needed - needs:
                yield Finding(subject, f"{path}{name} may be absent")
            yield from self.compare(schema, after[name], subject, f"{path}{name}")
        if self.direction == "requests":
            for name in after:
                if name in needs and name not in before:
                    yield Finding(subject, f"{path}{name} is new and required")


def _name(schema: Schema) -> str:
    ref: str = schema.get("$ref", "")
    return ref.removeprefix(_REF)


def _resolve(schema: Schema, document: Schema) -> Schema:
    while name := _name(schema):
        schema = document["components"]["schemas"][name]
    parts = [_resolve(part, document) for part in schema.get("allOf", ())]
    if not parts:
        return schema
    merged: Schema = {}
    for part in (*parts, {key: value for key, value in schema.items() if key != "allOf"}):
        properties = merged.get("properties", {}) | part.get("properties", {})
        required = [*merged.get("required", []), *part.get("required", [])]
        merged |= part
        merged |= {"properties": properties} if properties else {}
        merged |= {"required": required} if required else {}
    return merged


def _variants(schema: Schema, document: Schema) -> list[Schema]:
    """Its alternatives, each of one type: of `anyOf`, `oneOf` and `type: [string, "null"]`."""
    schema = _resolve(schema, document)
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            common = {key: value for key, value in schema.items() if key != keyword}
            return [
                {**common, **variant}
                for inner in schema[keyword]
                for variant in _variants(inner, document)
            ]
    types = schema.get("type")
    if isinstance(types, list):
        return [{**schema, "type": each} for each in types]
    return [schema]


def _kind(schema: Schema) -> str:
    if "type" in schema:
        return f"{schema['type']}"
    values = _enum(schema)
    if values:
        kinds = {str: "string", bool: "boolean", int: "integer", float: "number"}
        return kinds.get(type(values[0]), "null")
    return "object" if "properties" in schema else "any value"


def _match(variant: Schema, others: list[Schema]) -> Schema | None:
    """The one of the same type; among several objects, the one of the same title or tag."""
    kind = _kind(variant)
    wider = {kind, "any value"} | ({"number"} if kind == "integer" else set())
    same = [other for other in others if _kind(other) in wider]
    return next((each for each in same if _identity(each) == _identity(variant)), None) or (
        same[0] if same else None
    )


def _identity(schema: Schema) -> Any:
    constants = {
        name: values
        for name, each in schema.get("properties", {}).items()
        if (values := _enum(each)) is not None and len(values) == 1
    }
    return constants or schema.get("title"), _enum(schema)


def _enum(schema: Schema) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _list(values: list[Any]) -> str:
    return ", ".join(map(str, values))
