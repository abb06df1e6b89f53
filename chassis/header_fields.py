"""Header fields of a request that may be on several lines (RFC 9110, 5.3)."""

from starlette.types import Scope


def list_field(scope: Scope, name: bytes) -> str | None:
    """The value of a field that is a list: several lines are one list."""
    lines = [value for field, value in scope["headers"] if field == name]
    return b", ".join(lines).decode("latin-1") if lines else None


def single_field(scope: Scope, name: bytes) -> str | None:
    """The value of a field that has one value; raises ValueError where there are several lines."""
    lines = [value for field, value in scope["headers"] if field == name]
    if len(lines) > 1:
        raise ValueError(f"{name.decode().title()} was given more than once")
    return lines[0].decode("latin-1") if lines else None
