"""What readers of /docs would miss: summaries and tags of operations, descriptions of tags."""

from collections.abc import Iterator

from chassis.development.lint_openapi.operations import METHODS
from chassis.development.lint_openapi.schemas import Schema


def missing_descriptions(document: Schema) -> list[str]:
    """A line for each, which says what to do."""
    described = {tag["name"] for tag in document.get("tags", ()) if tag.get("description")}
    used: dict[str, str] = {}
    lines = []
    for name, operation in _operations(document):
        id = operation.get("operationId", "")
        # FastAPI's own, of an operation without one.
        if operation.get("summary", "") in ("", id.replace("_", " ").title()):
            lines.append(f"{name} has no summary: begin the docstring of {id} with one")
        if not operation.get("tags"):
            lines.append(f"{name} has no tag: give its router one, as in tags=[...]")
        for tag in operation.get("tags", ()):
            used.setdefault(tag, name)
    for tag, name in used.items():
        if tag not in described:
            lines.append(f"Tag {tag} of {name} has no description: add one to TAGS, app/about.py")
    for tag in sorted(described - used.keys()):
        lines.append(f"Tag {tag} has no operation: remove it from TAGS, app/about.py")
    return lines


def _operations(document: Schema) -> Iterator[tuple[str, Schema]]:
    for path, operations in document.get("paths", {}).items():
        for method in METHODS:
            if method in operations:
                yield f"{method.upper()} {path}", operations[method]
