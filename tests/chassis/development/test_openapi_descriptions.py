"""What `make lint` says of operations and tags that /docs would show without a description."""

from typing import Any

import pytest

from chassis.development.lint_openapi.descriptions import missing_descriptions

ID, SUMMARY, TAGS = "operationId", "summary", "tags"
DESCRIBED = {"name": "things", "description": "What there is"}


def document_with(operation: dict[str, Any], *tags: dict[str, str]) -> dict[str, Any]:
    whole = {ID: "get_all_things", SUMMARY: "List things", TAGS: ["things"]} | operation
    return {"paths": {"/things": {"get": whole, "parameters": []}}, TAGS: [DESCRIBED, *tags]}


@pytest.mark.parametrize("summary", ["List things", "Get all things"])
def test_described_operation_and_tag_pass(summary: str):
    assert missing_descriptions(document_with({SUMMARY: summary})) == []


@pytest.mark.parametrize("summary", ["", "Get All Things"])
def test_name_of_a_function_is_no_summary(summary: str):
    assert missing_descriptions(document_with({SUMMARY: summary})) == [
        "GET /things has no summary: begin the docstring of get_all_things with one"
    ]


def test_operation_without_a_tag_is_named():
    assert missing_descriptions(document_with({TAGS: []})) == [
        "GET /things has no tag: give its router one, as in tags=[...]",
        "Tag things has no operation: remove it from TAGS, app/about.py",
    ]


@pytest.mark.parametrize(
    "tags", [[], [{"name": "others"}], [{"name": "others", "description": ""}]]
)
def test_tag_without_a_description_is_named_with_an_operation(tags: list[dict[str, str]]):
    assert missing_descriptions(document_with({TAGS: ["things", "others"]}, *tags)) == [
        "Tag others of GET /things has no description: add one to TAGS, app/about.py"
    ]


def test_description_that_is_left_of_a_removed_tag_is_named():
    left = {"name": "others", "description": "What there was"}

    assert missing_descriptions(document_with({}, left)) == [
        "Tag others has no operation: remove it from TAGS, app/about.py"
    ]
