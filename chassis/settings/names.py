"""Which variables are settings, which were set by something else, and which are misspelt."""

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

Variables = Mapping[str, str | None]

# Kubernetes sets them for each Service of a namespace, Docker for each link.
_LINK = re.compile(r"(?i)(tcp|udp|sctp)://\S+")
_LINK_NAME = re.compile(
    r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)"
)
# Similarity from 0 to 1 (difflib) of names in a group of settings, and of others.
_SIMILAR_IN_GROUP = 0.65
_SIMILAR = 0.85
_SHORTEST = 8  # characters; shorter names are alike by chance


def fields_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        if (group := _group(field)) is not None:
            yield from fields_of(group, f"{name}_")
        else:
            yield f"{prefix}{name}".upper(), field


def groups_of(model: type[BaseModel]) -> set[str]:
    return {name.upper() for name, field in model.model_fields.items() if _group(field)}


def _group(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def is_foreign(name: str, value: str | None, groups: set[str]) -> bool:
    """Set by something else: the name of a group alone, or Kubernetes' `NAME_PORT=tcp://...`."""
    name = name.upper()
    return name in groups or (name.endswith("PORT") and bool(_LINK.fullmatch(value or "")))


def describe_unused(model: type[BaseModel], variables: Variables, file: str = "") -> Iterator[str]:
    """One line for each variable that looks like a setting of `model` and has no effect.

    `file`: where they come from, if not from the environment. In `.env` that is every variable
    which neither this service nor Compose knows.
    """
    known, groups = {name for name, _ in fields_of(model)}, groups_of(model)
    where = f" in {file}" if file else ""
    for name, value in variables.items():
        name = name.upper()
        if name == "MAIL" and not file:
            continue  # every login shell sets it
        if name in groups:
            example = next(one for one in sorted(known) if one.startswith(f"{name}_"))
            yield f"{name}{where} is ignored: settings of that group have names like {example}"
        elif name in known:
            if is_foreign(name, value, groups):
                yield f"{name}{where} is ignored: {value} is the address of a service, not a port"
        elif not _LINK_NAME.fullmatch(name) and not _LINK.fullmatch(value or ""):
            if (nearest := _nearest(name, known, groups)) is not None:
                yield f"{name}{where} is not a setting; did you mean {nearest}?"
            elif file == ".env" and not _is_of_compose(name):
                yield f"{name}{where} is not a setting; see docs/settings.md"


def _nearest(name: str, known: set[str], groups: set[str]) -> str | None:
    group, _, rest = name.partition("_")
    if group in groups:
        own = [one.removeprefix(f"{group}_") for one in known if one.startswith(f"{group}_")]
        found = difflib.get_close_matches(rest, own, 1, _SIMILAR_IN_GROUP)
        return f"{group}_{found[0]}" if found else None
    if len(name) < _SHORTEST:
        return None
    return next(iter(difflib.get_close_matches(name, known, 1, _SIMILAR)), None)


def _is_of_compose(name: str) -> bool:
    """Compose reads the same file, for the variables of its own files."""
    files = Path().glob("docker-compose*.yml")
    return name.startswith(("COMPOSE_", "DOCKER_")) or any(
        re.search(rf"\$\{{{re.escape(name)}\b", file.read_text("utf-8")) for file in files
    )
