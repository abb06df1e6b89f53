"""The table of all settings, as docs/settings.md shows it."""

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from chassis.settings.names import fields_of


def settings_table(settings: type[BaseModel]) -> str:
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in fields_of(settings):
        default = _default(field)
        rows.append(f"| `{name}` | {default} | {field.description} |")
    return "\n".join(rows)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return "usable CPUs"
    if field.default in (None, ""):
        return "none"
    value = field.default
    return f"`{value.get_secret_value() if isinstance(value, SecretStr) else value}`"
