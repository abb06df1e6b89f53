"""What a changed document does to the clients of its operations."""

import re
from collections.abc import Iterator
from datetime import date
from typing import Any

from chassis.development.lint_openapi.schemas import Comparison, Finding, Schema

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
# An announcement that is withdrawn, or a link that leads elsewhere, breaks nothing.
ANNOUNCEMENTS = {"Deprecation", "Sunset", "Link"}

Parameters = dict[tuple[str, str], Schema]  # by place and name
Findings = dict[Finding, list[str]]  # with the operations that have it


def breaking_changes(old: Schema, new: Schema, today: date) -> Findings:
    """What clients of `old` cannot bear in `new`.

    An operation whose sunset has passed by `today` may be changed and removed.
    """
    before, after = _operations(old), _operations(new)
    found: Findings = {}
    for key, (name, operation) in before.items():
        sunset = operation.get("x-sunset")
        if sunset is not None and date.fromisoformat(sunset) <= today:
            continue
        if key not in after:
            until = f" before its sunset on {sunset}" if sunset else ""
            found[Finding(name, f"is removed{until}")] = []
            continue
        for finding in _changes(old, new, operation, after[key][1], name):
            if name not in found.setdefault(finding, []) and finding.subject != name:
                found[finding].append(name)
    return found


def _operations(document: Schema) -> dict[tuple[str, str], tuple[str, Schema]]:
    """By method and path, whatever its parameters are called; with the name of each."""
    return {
        (method, re.sub(r"\{[^}]*\}", "{}", path)): (
            f"{method.upper()} {path}",
            {**operations[method], "parameters": _parameters_of(operations, method, path)},
        )
        for path, operations in document.get("paths", {}).items()
        for method in METHODS
        if method in operations
    }


def _parameters_of(operations: Schema, method: str, path: str) -> Parameters:
    """Those of a path by their order, as they may be renamed; names of headers have no case."""
    names = re.findall(r"\{([^}:]*)[^}]*\}", path)
    keys = {("path", name): f"{{{n}}}" for n, name in enumerate(names)}
    listed = [*operations.get("parameters", ()), *operations[method].get("parameters", ())]
    parameters = {}
    for each in listed:
        place, name = each["in"], each["name"]
        name = name.lower() if place == "header" else keys.get((place, name), name)
        parameters[place, name] = each
    return parameters


def _changes(
    old: Schema, new: Schema, before: Schema, after: Schema, name: str
) -> Iterator[Finding]:
    requests = Comparison(old, new, "requests")
    responses = Comparison(old, new, "responses")
    if (sunset := after.get("x-sunset")) and sunset < before.get("x-sunset", ""):
        yield Finding(name, f"has its sunset on {sunset} instead of {before['x-sunset']}")
    yield from _security(before, after, old, new, name)
    yield from _parameters(before["parameters"], after["parameters"], requests, name)
    yield from _body(before.get("requestBody"), after.get("requestBody"), requests, name)
    for status, response in before.get("responses", {}).items():
        where = f"response {status}"
        if status in after.get("responses", {}):
            yield from _response(response, after["responses"][status], responses, name, where)
        elif status != "304":  # 200 may always be the response instead
            yield Finding(name, f"{where} is removed")


def _parameters(
    before: Parameters, after: Parameters, requests: Comparison, name: str
) -> Iterator[Finding]:
    for key, parameter in before.items():
        label = f"{parameter['in']} parameter {parameter['name']}"
        if key not in after:
            yield Finding(name, f"{label} is removed")
            continue
        if after[key].get("required") and not parameter.get("required"):
            yield Finding(name, f"{label} is required")
        pair = _without_null(parameter.get("schema", {})), after[key].get("schema", {})
        yield from requests.compare(*pair, name, label)
    for key, parameter in after.items():
        if key not in before and parameter.get("required"):
            label = f"{parameter['in']} parameter {parameter['name']}"
            yield Finding(name, f"{label} is new and required")


def _without_null(schema: Schema) -> Schema:
    """A parameter is text, so that no client can have sent null."""
    if "anyOf" not in schema:
        return schema
    return {**schema, "anyOf": [each for each in schema["anyOf"] if each != {"type": "null"}]}


def _body(
    before: Schema | None, after: Schema | None, requests: Comparison, name: str
) -> Iterator[Finding]:
    if before is None:
        if after is not None and after.get("required"):
            yield Finding(name, "a body is required")
        return
    if after is None:
        yield Finding(name, "the body is removed")
        return
    if after.get("required") and not before.get("required"):
        yield Finding(name, "a body is required")
    yield from _content(before, after, requests, name, "body")


def _response(
    before: Schema, after: Schema, responses: Comparison, name: str, where: str
) -> Iterator[Finding]:
    headers = {key.lower(): header for key, header in after.get("headers", {}).items()}
    for key, header in before.get("headers", {}).items():
        if key in ANNOUNCEMENTS:
            continue
        other = headers.get(key.lower())
        if other is None:
            yield Finding(name, f"{where} has no header {key}")
        elif header.get("required") and not other.get("required"):
            yield Finding(name, f"{where} may have no header {key}")
    yield from _content(before, after, responses, name, where)


def _content(
    before: Schema, after: Schema, comparison: Comparison, name: str, where: str
) -> Iterator[Finding]:
    content = after.get("content", {})
    for media, described in before.get("content", {}).items():
        if media not in content:
            yield Finding(name, f"{where} cannot be {media}")
            continue
        pair = described.get("schema", {}), content[media].get("schema", {})
        yield from comparison.compare(*pair, name, where)


def _security(
    before: Schema, after: Schema, old: Schema, new: Schema, name: str
) -> Iterator[Finding]:
    """Each way in must still be one; none, or an empty one, is open to all."""
    was: list[dict[str, Any]] = before.get("security", old.get("security")) or [{}]
    now: list[dict[str, Any]] = after.get("security", new.get("security")) or [{}]
    for way in was:
        if not any(
            scheme.keys() <= way.keys() and all({*scheme[key]} <= {*way[key]} for key in scheme)
            for scheme in now
        ):
            needed = " or ".join(" and ".join(map(_scheme, each.items())) for each in now)
            instead = " and ".join(map(_scheme, way.items())) or "nothing"
            yield Finding(name, f"needs {needed} instead of {instead}")


def _scheme(item: tuple[str, list[str]]) -> str:
    scheme, scopes = item
    return f"{scheme} ({', '.join(scopes)})" if scopes else scheme
