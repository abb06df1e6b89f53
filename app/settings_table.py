"""The table of all settings, as docs/settings.md shows it."""

from collections.abc import Iterator

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from app.settings import Settings


def settings_table() -> str:
    """Every setting as a row of Markdown; docs/settings.md holds what this returns."""
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in _fields(Settings):
        default = _default(field)
        rows.append(f"| `{name}` | {default} | {field.description} |")
    return "\n".join(rows)


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _fields(field.annotation, f"{name}_")
        else:
            yield f"{prefix}{name}".upper(), field


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return "the CPUs it may use"
    if field.default is None:
        return "none"
    value = field.default
    return f"`{value.get_secret_value() if isinstance(value, SecretStr) else value}`"
