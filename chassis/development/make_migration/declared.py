"""The schema as the migrations declare it, which a database does not know.

SQLite says INTEGER for a column that is a BIGINT on MariaDB. What is compared with the models,
and what a downgrade restores, must be the type that the earlier migration has written.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Column, Dialect, Table, event, make_url
from sqlalchemy.types import TypeEngine

from chassis.database.urls import DRIVERS
from chassis.migrations.sqlite_ddl import CompleteSQLiteImpl

DIALECTS: list[Dialect] = [make_url(f"{driver}://").get_dialect()() for driver in DRIVERS]


@dataclass
class DeclaredTable:
    columns: dict[str, TypeEngine[Any]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


declared: dict[str, DeclaredTable] = {}


class RecordingImpl(CompleteSQLiteImpl):
    """Fills `declared` while migrations run on SQLite."""

    __dialect__ = "sqlite"

    def create_table(self, table: Table, **kw: Any) -> None:
        super().create_table(table, **kw)
        columns = {column.name: column.type for column in table.columns}
        declared[table.name] = DeclaredTable(columns, dict(table.kwargs))

    def rename_table(self, old_table_name: str, new_table_name: str, schema: Any = None) -> None:
        super().rename_table(old_table_name, new_table_name, schema)
        if (table := declared.pop(old_table_name, None)) is not None:
            before = declared.get(new_table_name, table)  # a copy has none of the options
            table.options = before.options | table.options
            declared[new_table_name] = table

    def add_column(self, table_name: str, column: Column[Any], **kw: Any) -> None:
        super().add_column(table_name, column, **kw)
        declared.setdefault(table_name, DeclaredTable()).columns[column.name] = column.type


@contextmanager
def recording() -> Iterator[None]:
    """Meanwhile reflected columns have their declared types."""

    def replace_type(_: object, table: Table, column: dict[str, Any]) -> None:
        if (known := declared.get(table.name)) is not None:
            column["type"] = known.columns.get(column["name"], column["type"])

    declared.clear()
    event.listen(Table, "column_reflect", replace_type)
    try:
        yield
    finally:
        event.remove(Table, "column_reflect", replace_type)
