"""The types of fields, as models and schemas write them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Kind:
    """How a type is written in a model and in schemas."""

    model: str  # in Mapped[...]
    column: str  # argument of mapped_column
    read: str  # type in a response
    write: str  # type in a request
    examples: tuple[object, object, object]  # JSON, in ascending order
    is_sortable: bool = True
    is_range: bool = False  # lists are filtered by bounds, rather than by a value
    alias: str = ""  # the definition of `write`, where it needs one


KINDS = {
    "int": Kind("int", "BigInteger", "int", "int", (1, 20, 300), is_range=True),
    "float": Kind("float", "Double", "float", "float", (0.5, 2.25, 10.0), is_range=True),
    "bool": Kind("bool", "", "bool", "bool", (False, True, True)),
    "money": Kind(
        "Decimal", "Numeric(12, 2)", "Decimal", "Money", ("9.90", "10.00", "100.00"), is_range=True
    ),
    "date": Kind(
        "date", "", "date", "date", ("2026-01-31", "2026-02-01", "2027-01-01"), is_range=True
    ),
    "datetime": Kind(
        "datetime",
        "UTCDateTime",
        "datetime",
        "datetime",
        ("2026-01-31T09:30:00Z", "2026-01-31T10:00:00Z", "2026-02-01T00:00:00Z"),
        is_range=True,
    ),
    "uuid": Kind(
        "UUID",
        "Uuid(native_uuid=False)",
        "UUID",
        "UUID",
        (
            "0b0f5f0e-0000-4000-8000-000000000001",
            "1b0f5f0e-0000-4000-8000-000000000002",
            "2b0f5f0e-0000-4000-8000-000000000003",
        ),
    ),
    "email": Kind(
        "str",
        "String(254)",
        "str",
        "Email",
        ("ada@example.com", "bob@example.com", "eve@example.com"),
    ),
}


def str_kind(name: str, size: int) -> Kind:
    """`name`: of the type in the schemas."""
    alias = f'Annotated[str, Text(max_length={size}), Field(examples=["b"])]'
    return Kind("str", f"String({size})", "str", name, ("a", "b", "c"), alias=alias)


def text_kind(name: str) -> Kind:
    alias = 'Annotated[str, Text(max_length=5000, multiline=True), Field(examples=["Second"])]'
    examples = ("First line\nand more", "Second", "Third")
    return Kind("str", "Text", "str", name, examples, is_sortable=False, alias=alias)


def number_kind(name: str, kind: Kind) -> Kind:
    """With a type of its own, where its bounds belong."""
    alias = f"Annotated[{kind.write}, Field(examples=[{kind.examples[1]}])]"
    return replace(kind, write=name, alias=alias)


def enum_kind(name: str, values: Iterable[str]) -> Kind:
    ordered = sorted(values)
    examples = (ordered[0], ordered[1], ordered[-1])
    size = max(20, *map(len, ordered))  # with room for more words
    return Kind("str", f"String({size})", name, name, examples)


def ref_kind(table: str) -> Kind:
    return Kind("int", f'ForeignKey("{table}.id")', "int", "Id", (1, 2, 3))
