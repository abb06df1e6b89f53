"""Which changes of a document break its clients, and which do not."""

from collections.abc import Callable
from copy import deepcopy
from datetime import date
from typing import Any

import pytest

from chassis.development.lint_openapi.operations import breaking_changes

TODAY = date(2026, 6, 15)
JSON = "application/json"
TEXT = {"type": "string"}
NULL = {"type": "null"}
THING = {
    "type": "object",
    "required": ["id", "name", "state", "tags"],
    "properties": {
        "id": {"type": "integer"},
        "name": {"type": "string"},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "state": {"type": "string", "enum": ["open", "paid"]},
        "at": {"type": "string", "format": "date-time"},
        "tags": {"type": "array", "items": {"$ref": "#/components/schemas/Tag"}},
    },
}
CREATE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 50},
        "price": {"anyOf": [{"type": "number", "maximum": 100}, {"type": "null"}]},
        "state": {"type": "string", "enum": ["open", "paid"]},
        "tags": {"type": "array", "maxItems": 9, "items": {"type": "string"}},
    },
}
TAG = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
LIMIT = {
    "name": "limit",
    "in": "query",
    "required": False,
    "schema": {"type": "integer", "minimum": 1, "maximum": 100},
}


def reference(name: str) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{name}"}}


DOCUMENT: dict[str, Any] = {
    "paths": {
        "/things/{id}": {
            "get": {
                "parameters": [
                    {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}},
                    LIMIT,
                ],
                "responses": {
                    "200": {
                        "content": {JSON: reference("Thing")},
                        "headers": {"ETag": {"required": True, "schema": TEXT}},
                    },
                    "304": {},
                    "404": {},
                },
            },
            "post": {
                "security": [{"oauth": []}],
                "requestBody": {"content": {JSON: reference("Create"), "text/csv": {}}},
                "responses": {"201": {"content": {JSON: reference("Thing")}}},
            },
        },
    },
    "components": {"schemas": {"Thing": THING, "Create": CREATE, "Tag": TAG}},
}

Change = Callable[[dict[str, Any]], object]  # of the parts of a document, in place


class Parts(dict[str, Any]):
    """The places of a document that tests change."""

    def __init__(self, document: dict[str, Any]) -> None:
        schemas = document["components"]["schemas"]
        path = document["paths"]["/things/{id}"]
        super().__init__(
            document=document,
            path=path,
            get=path["get"],
            post=path["post"],
            ok=path["get"]["responses"]["200"],
            limit=path["get"]["parameters"][1],
            thing=schemas["Thing"],
            made=schemas["Thing"]["properties"],
            create=schemas["Create"],
            sent=schemas["Create"]["properties"],
            tag=schemas["Tag"],
        )


def found(change: Change, before: Change | None = None) -> list[str]:
    old = deepcopy(DOCUMENT)
    if before is not None:
        before(Parts(old))
    new = deepcopy(old)
    change(Parts(new))
    return [f"{finding}" for finding in breaking_changes(old, new, TODAY)]


GET, POST = "GET /things/{id}", "POST /things/{id}"
SEND, RECEIVE = "Create in requests", "Thing in responses"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda p: p["path"].pop("get"), f"{GET}: is removed"),
        (lambda p: p["path"].pop("post"), f"{POST}: is removed"),
        (lambda p: p["get"]["responses"].pop("404"), f"{GET}: response 404 is removed"),
        (lambda p: p["made"].pop("name"), f"{RECEIVE}: name is removed"),
        (lambda p: p["made"].update(label=p["made"].pop("name")), f"{RECEIVE}: name is removed"),
        (lambda p: p["thing"]["required"].remove("name"), f"{RECEIVE}: name may be absent"),
        (lambda p: p["made"].update(name={"anyOf": [TEXT, NULL]}), f"{RECEIVE}: name may be null"),
        (
            lambda p: p["made"].update(name={"type": ["string", "null"]}),
            f"{RECEIVE}: name may be null",
        ),
        (lambda p: p["made"].update(id=TEXT), f"{RECEIVE}: id is string instead of integer"),
        (
            lambda p: p["made"].update(id={"type": "number"}),
            f"{RECEIVE}: id is number instead of integer",
        ),
        (
            lambda p: p["made"]["at"].update(format="date"),
            f"{RECEIVE}: at has the format date instead of date-time",
        ),
        (lambda p: p["made"]["state"]["enum"].append("lost"), f"{RECEIVE}: state may be lost"),
        (lambda p: p["made"]["state"].pop("enum"), f"{RECEIVE}: state may be any value"),
        (lambda p: p["tag"]["properties"].clear(), "Tag in responses: word is removed"),
        (
            lambda p: p["made"]["tags"].update(items=TEXT),
            f"{RECEIVE}: tags[] is string instead of object",
        ),
        (
            lambda p: p["ok"]["content"].update({JSON: {"schema": {"type": "array"}}}),
            f"{GET}: response 200 is array instead of object",
        ),
        (
            lambda p: p["ok"].update(content={"text/csv": {}}),
            f"{GET}: response 200 cannot be {JSON}",
        ),
        (lambda p: p["ok"].pop("headers"), f"{GET}: response 200 has no header ETag"),
        (
            lambda p: p["ok"]["headers"]["ETag"].update(required=False),
            f"{GET}: response 200 may have no header ETag",
        ),
        (
            lambda p: (p["create"]["required"].append("size"), p["sent"].update(size=TEXT)),
            f"{SEND}: size is new and required",
        ),
        (lambda p: p["create"]["required"].append("state"), f"{SEND}: state is required"),
        (lambda p: p["sent"].pop("price"), f"{SEND}: price is removed"),
        (
            lambda p: p["sent"].update(price={"type": "number", "maximum": 100}),
            f"{SEND}: price may no longer be null",
        ),
        (
            lambda p: p["sent"]["price"]["anyOf"][0].update(type="integer"),
            f"{SEND}: price is integer instead of number",
        ),
        (
            lambda p: p["sent"]["price"]["anyOf"][0].update(maximum=99),
            f"{SEND}: price has maximum 99 instead of 100",
        ),
        (
            lambda p: p["sent"]["name"].update(maxLength=40),
            f"{SEND}: name has maxLength 40 instead of 50",
        ),
        (
            lambda p: p["sent"]["name"].update(minLength=2),
            f"{SEND}: name has minLength 2 instead of 1",
        ),
        (
            lambda p: p["sent"]["name"].update(pattern="^x"),
            f"{SEND}: name has pattern ^x instead of none",
        ),
        (
            lambda p: p["sent"]["name"].update(format="email"),
            f"{SEND}: name has the format email instead of None",
        ),
        (
            lambda p: p["sent"]["tags"]["items"].update(maxLength=3),
            f"{SEND}: tags[] has maxLength 3 instead of none",
        ),
        (
            lambda p: p["sent"]["state"]["enum"].remove("paid"),
            f"{SEND}: state may no longer be paid",
        ),
        (
            lambda p: p["sent"]["name"].update(enum=["a", "b"]),
            f"{SEND}: name must be one of a, b",
        ),
        (lambda p: p["limit"].update(required=True), f"{GET}: query parameter limit is required"),
        (
            lambda p: p["limit"]["schema"].update(maximum=50),
            f"{GET}: query parameter limit has maximum 50 instead of 100",
        ),
        (
            lambda p: p["limit"].update(name="size"),
            f"{GET}: query parameter limit is removed",
        ),
        (
            lambda p: p["get"]["parameters"].append(LIMIT | {"name": "day", "required": True}),
            f"{GET}: query parameter day is new and required",
        ),
        (
            lambda p: p["post"]["requestBody"]["content"].pop("text/csv"),
            f"{POST}: body cannot be text/csv",
        ),
        (lambda p: p["post"]["requestBody"].update(required=True), f"{POST}: a body is required"),
        (lambda p: p["post"].pop("requestBody"), f"{POST}: the body is removed"),
        (
            lambda p: p["get"].update(requestBody={"required": True, "content": {}}),
            f"{GET}: a body is required",
        ),
        (
            lambda p: p["get"].update(security=[{"oauth": []}]),
            f"{GET}: needs oauth instead of nothing",
        ),
        (
            lambda p: p["post"].update(security=[{"key": []}]),
            f"{POST}: needs key instead of oauth",
        ),
        (
            lambda p: p["post"].update(security=[{"oauth": ["write"]}]),
            f"{POST}: needs oauth (write) instead of oauth",
        ),
    ],
)
def test_what_breaks_clients_is_named_with_its_place(change: Change, expected: str):
    assert found(change) == [expected]


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p["document"]["paths"].update({"/others": {"get": {}}}),
        lambda p: p["path"].update(put={"responses": {}}),
        lambda p: p["get"]["responses"].update({"410": {}}),
        lambda p: p["get"]["responses"].pop("304"),
        lambda p: p["made"].update(size=TEXT),
        lambda p: p["thing"]["required"].append("note"),
        lambda p: p["made"].update(note=TEXT),  # no longer null
        lambda p: p["made"].update(name={"type": "string", "format": "uri"}),
        lambda p: p["made"]["name"].update(maxLength=500, description="Longer", title="Name"),
        lambda p: p["made"]["state"]["enum"].remove("paid"),
        lambda p: p["ok"]["content"].update({"text/csv": {}}),
        lambda p: p["ok"]["headers"].update(Age={}),
        lambda p: p["sent"].update(size=TEXT),
        lambda p: p["create"]["required"].clear(),
        lambda p: p["create"].pop("additionalProperties"),
        lambda p: p["sent"].update(name={"type": ["string", "null"]}),
        lambda p: p["sent"]["name"].update(maxLength=60, minLength=0),
        lambda p: p["sent"]["name"].pop("maxLength"),
        lambda p: p["sent"]["state"]["enum"].append("lost"),
        lambda p: p["sent"]["state"].pop("enum"),
        lambda p: p["limit"]["schema"].update(type="number", maximum=200, default=7),
        lambda p: p["get"]["parameters"].append(LIMIT | {"name": "day"}),
        lambda p: p["get"].update(operationId="other", summary="Other", tags=["x"]),
        lambda p: p["get"].update(deprecated=True, **{"x-sunset": "2027-01-01"}),
        lambda p: p["get"].update(requestBody={"content": {}}),
        lambda p: p["post"]["requestBody"]["content"].update({"text/plain": {}}),
        lambda p: p["post"].pop("security"),
        lambda p: p["post"]["security"].append({"key": []}),
    ],
)
def test_what_clients_can_bear_passes(change: Change):
    assert found(change) == []


def test_parameter_of_a_path_may_be_renamed_but_not_change():
    def rename(parts: dict[str, Any], **more: Any) -> None:
        paths = parts["document"]["paths"]
        paths["/things/{thing_id}"] = paths.pop("/things/{id}")
        parts["get"]["parameters"][0].update(name="thing_id", **more)

    assert found(rename) == []
    assert found(lambda parts: rename(parts, schema=TEXT | {"maxLength": 9})) == [
        "GET /things/{id}: path parameter id is string instead of integer"
    ]


def test_parameter_need_not_allow_null_which_nobody_can_send():
    def allow_null(parts: dict[str, Any]) -> None:
        parts["limit"]["schema"] = {"anyOf": [{"type": "integer"}, NULL]}

    def refuse_null(parts: dict[str, Any]) -> None:
        parts["limit"]["schema"] = {"type": "integer"}

    assert found(refuse_null, before=allow_null) == []


def test_schema_may_be_renamed_and_is_compared_all_the_same():
    def rename(parts: dict[str, Any]) -> None:
        schemas = parts["document"]["components"]["schemas"]
        schemas["Item"] = schemas.pop("Thing")
        parts["ok"]["content"][JSON] = reference("Item")
        parts["post"]["responses"]["201"]["content"][JSON] = reference("Item")

    def rename_and_change(parts: dict[str, Any]) -> None:
        rename(parts)
        parts["made"].pop("id")

    assert found(rename) == []
    assert found(rename_and_change) == ["Item in responses: id is removed"]


def test_change_of_a_shared_schema_is_one_finding_with_its_operations():
    new = deepcopy(DOCUMENT)
    new["components"]["schemas"]["Thing"]["properties"].pop("id")

    assert breaking_changes(DOCUMENT, new, TODAY) == {
        ("Thing in responses", "id is removed"): [GET, POST]
    }


def test_properties_of_any_name_are_compared():
    def open_up(parts: dict[str, Any]) -> None:
        parts["create"].pop("additionalProperties")
        parts["sent"]["extra"] = {"additionalProperties": {"type": "number"}, "type": "object"}
        parts["made"]["extra"] = {"additionalProperties": TEXT, "type": "object"}

    def close(parts: dict[str, Any]) -> None:
        parts["create"]["additionalProperties"] = False
        parts["sent"]["extra"]["additionalProperties"] = {"type": "integer"}
        parts["made"]["extra"]["additionalProperties"] = NULL

    assert set(found(close, before=open_up)) == {
        f"{SEND}: it may no longer have other properties",
        f"{SEND}: extra{{}} is integer instead of number",
        f"{RECEIVE}: extra{{}} may be null",
    }


def test_parts_of_a_whole_are_compared_as_one():
    def combine(parts: dict[str, Any]) -> None:
        more = {"type": "object", "properties": {"size": TEXT}, "required": ["size"]}
        parts["document"]["components"]["schemas"]["Part"] = deepcopy(TAG)
        parts["made"]["whole"] = {"allOf": [reference("Part")["schema"], more]}

    def remove(parts: dict[str, Any]) -> None:
        parts["document"]["components"]["schemas"]["Part"]["properties"].clear()
        parts["made"]["whole"]["allOf"][1]["required"].clear()

    assert found(remove, before=combine) == [
        f"{RECEIVE}: whole.word is removed",
        f"{RECEIVE}: whole.size may be absent",
    ]


def test_schema_that_contains_itself_is_compared_once():
    def nest(parts: dict[str, Any]) -> None:
        parts["tag"]["properties"]["parent"] = reference("Tag")["schema"]

    assert found(lambda parts: parts["tag"]["required"].clear(), before=nest) == [
        "Tag in responses: word may be absent"
    ]


def test_objects_of_a_union_are_told_apart_by_their_constants():
    def unite(parts: dict[str, Any]) -> None:
        cat, dog = (
            {"type": "object", "properties": {"kind": {"const": kind}, kind: TEXT}}
            for kind in ("cat", "dog")
        )
        parts["made"]["pet"] = {"oneOf": [cat, dog]}

    def reverse_and_remove(parts: dict[str, Any]) -> None:
        parts["made"]["pet"]["oneOf"].reverse()
        parts["made"]["pet"]["oneOf"][0]["properties"].pop("dog")

    assert found(reverse_and_remove, before=unite) == [f"{RECEIVE}: pet.dog is removed"]


@pytest.mark.parametrize(
    ("sunset", "expected"),
    [
        ("2026-06-15", []),
        ("2026-01-01", []),
        ("2026-06-16", [f"{POST}: is removed before its sunset on 2026-06-16"]),
    ],
)
def test_operation_may_go_from_its_sunset_on(sunset: str, expected: list[str]):
    def announce(parts: dict[str, Any]) -> None:
        parts["post"]["x-sunset"] = sunset

    assert found(lambda parts: parts["path"].pop("post"), before=announce) == expected


def test_sunset_may_be_later_but_not_sooner_than_announced():
    def announce(parts: dict[str, Any]) -> None:
        parts["post"]["x-sunset"] = "2027-01-01"

    def move(day: str) -> list[str]:
        return found(lambda parts: parts["post"].update({"x-sunset": day}), before=announce)

    assert move("2027-02-01") == []
    assert move("2026-12-31") == [f"{POST}: has its sunset on 2026-12-31 instead of 2027-01-01"]
