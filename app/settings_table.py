"""The table of all settings, as docs/settings.md shows it."""

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from app.settings import Settings
from app.settings_names import fields_of


def settings_table() -> str:
    """Every setting as a row of Markdown; docs/settings.md holds what this returns."""
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in fields_of(Settings):
        default = _default(field)
        rows.append(f"| `{name}` | {default} | {field.description} |")
    return "\n".join(rows)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return "the CPUs it may use"
    if field.default is None:
        return "none"
    value = field.default
    return f"`{value.get_secret_value() if isinstance(value, SecretStr) else value}`"
