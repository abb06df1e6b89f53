"""A SELECT as its driver takes it, compiled once: what SQLAlchemy does anew for each execution."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import Dialect, Select
from sqlalchemy.sql.compiler import SQLCompiler

MAX_QUERIES = 1024

Convert = Callable[[Any], Any] | None


@dataclass(frozen=True)
class DriverQuery:
    """Its text, with what converts parameters and columns between Python and the driver."""

    text: str
    binds: Sequence[tuple[str, Convert]]
    constants: Mapping[str, Any]  # parameters that the statement itself has values for
    columns: Sequence[tuple[int, Callable[[Any], Any]]]  # those that are converted

    def arguments(self, parameters: Mapping[str, Any]) -> tuple[Any, ...]:
        values = {**self.constants, **parameters} if self.constants else parameters
        return tuple([values[name] if to is None else to(values[name]) for name, to in self.binds])

    def convert(self, rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
        converted = [list(row) for row in rows]
        for at, convert in self.columns:
            for row in converted:
                row[at] = convert(row[at])
        return converted


@lru_cache(MAX_QUERIES)
def compile_query(statement: Select[Any], dialect: Dialect) -> DriverQuery:
    """`statement`: a constant of its module, or cached, as it is found again by identity."""
    compiled = statement.compile(dialect=dialect)
    names = compiled.positiontup if isinstance(compiled, SQLCompiler) else None
    if not isinstance(compiled, SQLCompiler) or names is None or compiled.post_compile_params:
        raise TypeError("This statement has a varying number of parameters, or named ones")
    binds = compiled.binds
    kinds = [column.type.dialect_impl(dialect) for column in statement.selected_columns]
    converters = [kind.result_processor(dialect, None) for kind in kinds]
    return DriverQuery(
        str(compiled),
        [(name, binds[name].type.dialect_impl(dialect).bind_processor(dialect)) for name in names],
        {name: bind.effective_value for name, bind in binds.items() if not bind.required},
        [(at, convert) for at, convert in enumerate(converters) if convert is not None],
    )
