"""The fields of a resource, as a developer writes them: `number:str:50:unique total:money`."""

import builtins
import keyword
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import cached_property

from pydantic import BaseModel

from app.development.make_resource.kinds import (
    KINDS,
    Kind,
    enum_kind,
    number_kind,
    ref_kind,
    str_kind,
    text_kind,
)

TYPES = (
    "str:N, text, int, float, bool, money, date, datetime, uuid, email, enum(a,b), ref(resource)"
)
OPTIONS = ("unique", "optional", "index")
TAKEN = {"id", "version", "created_at", "updated_at", "user_id", "metadata", "registry"}
TAKEN |= {"limit", "after", "sort"}  # parameters of the list
TAKEN |= {"bool", "date", "datetime", "float", "int", "str"}
MAX_STR = 700  # characters; a cursor holds no longer ones
_FIELD = re.compile(r"([a-z][a-z0-9_]*):([a-z]+)(?:\(([^)]*)\))?((?::[a-z0-9]+)*)")
_NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
OF_TESTS = ("payer", "purchase")


class ResourceError(Exception):
    """What is wrong with the request for a resource, and what to do."""


@dataclass(frozen=True)
class Field:
    """One column of the table, and what requests and responses have for it."""

    name: str
    type: str
    kind: Kind
    is_unique: bool = False
    is_optional: bool = False
    is_indexed: bool = False
    values: tuple[str, ...] = ()  # of an enum
    refers_to: str = ""  # a resource
    table: str = ""  # of that resource
    is_private: bool = False  # that resource: each account has its own

    @property
    def is_listed(self) -> bool:
        """Whether lists are sorted and filtered by it: an index supports both."""
        return (self.is_unique or self.is_indexed) and self.kind.is_sortable

    @property
    def null(self) -> str:
        return " | None" if self.is_optional else ""

    @cached_property
    def default(self) -> str:
        """Of a POST; empty: it has to be sent."""
        if self.is_optional:
            return " = None"
        if self.values:
            return f" = {self.kind.write}.{member(self.values[0])}"
        return " = False" if self.type == "bool" else ""

    @property
    def query(self) -> str:
        """The type of a filter: text that is converted."""
        special = {
            "int": "WholeNumber",
            "float": "Annotated[float, Field(allow_inf_nan=False)]",
            "ref": "Whole[Id]",
        }
        return special.get(self.type, self.kind.write)


def member(value: str) -> str:
    """The name of an enum's member."""
    return value.upper()


def camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def words(name: str) -> str:
    return name.replace("_", " ")


def with_article(noun: str) -> str:
    is_spoken_as_vowel = re.match(r"(?!uni|us[ae]|eu|one)[aeiou]|hour", noun)
    return f"{'an' if is_spoken_as_vowel else 'a'} {noun}"


def check_name(what: str, name: str) -> str:
    if not _NAME.fullmatch(name) or len(name) > 40 or keyword.iskeyword(name):
        raise ResourceError(
            f"{what}={name}: write a noun in lower case, such as order or price_list "
            "(letters, digits and single underscores; no word of Python)"
        )
    if hasattr(builtins, name):
        raise ResourceError(f"{what}={name}: Python has a function of this name; choose another")
    if name.removesuffix("s") in OF_TESTS:
        raise ResourceError(f"{what}={name}: tests/purchases has a resource of this name")
    return name


def parse_fields(
    text: str, single: str, tables: Mapping[str, str], private: Container[str] = ()
) -> list[Field]:
    """`tables`: of the resources that `ref` may name; `private`: those that accounts own.

    Raises ResourceError.
    """
    fields = [_parse(one, single, tables, private) for one in text.split()]
    if not fields:
        raise ResourceError(f'FIELDS is empty: write FIELDS="name:str:50 ...", of {TYPES}')
    names = [field.name for field in fields]
    for name in names:
        if names.count(name) > 1:
            raise ResourceError(f"{name}: There are two fields of this name; rename one")
    return fields


def _parse(text: str, single: str, tables: Mapping[str, str], private: Container[str]) -> Field:
    if text.endswith(",") or text.count("(") != text.count(")"):
        raise ResourceError(f"{text}: write a space between fields, and none within parentheses")
    if (match := _FIELD.fullmatch(text)) is None:
        raise ResourceError(f"{text}: write name:type, in lower case, with a type of {TYPES}")
    name, type, inside, rest = match.groups()
    options = rest.split(":")[1:]
    if type == "ref" and not name.endswith("_id"):
        name += "_id"
    _check_field_name(text, name)
    own_type = camel(single) + camel(name)
    values: tuple[str, ...] = ()
    table = ""
    if type == "enum":
        values = _values(text, inside)
        kind = enum_kind(own_type, values)
    elif type == "ref":
        table = _table(text, inside, tables)
        kind = ref_kind(table)
    elif inside is not None:
        raise ResourceError(f"{text}: only enum and ref have something in parentheses")
    elif type == "str":
        kind = str_kind(own_type, _size(text, options))
    elif type == "text":
        kind = text_kind(own_type)
    elif type in ("int", "float"):
        kind = number_kind(own_type, KINDS[type])
    elif type in KINDS:
        kind = KINDS[type]
    else:
        raise ResourceError(f"{text}: {type} is no type; there are {TYPES}")
    _check_options(text, type, options)
    return Field(
        name,
        type,
        kind,
        is_unique="unique" in options,
        is_optional="optional" in options,
        is_indexed="index" in options or type == "ref",
        values=values,
        refers_to=inside or "" if table else "",
        table=table,
        is_private=bool(table) and inside in private,
    )


def _check_field_name(text: str, name: str) -> None:
    is_name = _NAME.fullmatch(name) and not keyword.iskeyword(name) and len(name) <= 40
    # A model of Pydantic has methods, and the body of a class cannot say `date: date` twice.
    if not is_name or name in TAKEN or name.startswith("model_") or hasattr(BaseModel, name):
        raise ResourceError(f"{text}: {name} cannot be the name of a field; choose another")


def _check_options(text: str, type: str, options: list[str]) -> None:
    if unknown := [one for one in options if one not in OPTIONS]:
        raise ResourceError(f"{text}: {unknown[0]} is no option; there are {', '.join(OPTIONS)}")
    if type == "text" and set(options) & {"unique", "index"}:
        raise ResourceError(f"{text}: a text has no index; use str:N, with N up to {MAX_STR}")
    if type in ("bool", "enum") and "unique" in options:
        raise ResourceError(f"{text}: a row for each value would fill the table; leave :unique out")


def _size(text: str, options: list[str]) -> int:
    """Of `str:N`; takes it out of the options."""
    size = int(options.pop(0)) if options and options[0].isdigit() else 0
    if not 1 <= size <= MAX_STR:
        raise ResourceError(f"{text}: write str:N, with N from 1 to {MAX_STR}, or text")
    return size


def _values(text: str, inside: str | None) -> tuple[str, ...]:
    values = tuple((inside or "").split(","))
    bad = [one for one in values if not _NAME.fullmatch(one) or len(one) > 50]
    if bad or len(set(values)) < len(values) or len(values) < 2:
        raise ResourceError(f"{text}: write enum(open,paid), two or more different words")
    return values


def _table(text: str, inside: str | None, tables: Mapping[str, str]) -> str:
    if inside is None or inside not in tables:
        known = ", ".join(sorted(tables)) or "none yet"
        raise ResourceError(f"{text}: write ref(NAME), of a resource that exists: {known}")
    return tables[inside]
