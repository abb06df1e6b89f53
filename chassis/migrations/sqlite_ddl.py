"""Keeps what Alembic loses when it alters a table on SQLite: it copies, drops and renames it."""

import re
from typing import Any

from alembic.ddl.sqlite import SQLiteImpl
from sqlalchemy import Connection, Inspector, Table, event, text


class CompleteSQLiteImpl(SQLiteImpl):
    """Carries triggers and AUTOINCREMENT over, so that a deleted id is not given out again.

    Alembic uses the class that was defined last for a dialect: importing this module suffices.
    """

    __dialect__ = "sqlite"

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self._restore: dict[str, list[str]] = {}

    def prep_table_for_batch(self, batch_impl: Any, table: Table) -> None:
        super().prep_table_for_batch(batch_impl, table)
        definition = _definition(self.connection, table.name) or ""
        options = batch_impl.new_table.dialect_options["sqlite"]
        options["autoincrement"] = "AUTOINCREMENT" in definition.upper()
        for column in batch_impl.new_table.columns:
            if column.computed is not None:  # it takes no value
                batch_impl.column_transfers[column.name].pop("expr", None)

    def drop_table(self, table: Table, **kw: Any) -> None:
        if self.connection is not None:  # `alembic upgrade --sql` only prints statements
            self._restore[table.name] = _triggers_and_sequence(self.connection, table.name)
        super().drop_table(table, **kw)

    def rename_table(self, old_table_name: str, new_table_name: str, schema: Any = None) -> None:
        super().rename_table(old_table_name, new_table_name, schema)
        for statement in self._restore.pop(new_table_name, ()):
            if self.connection is not None:
                self.connection.exec_driver_sql(statement)


@event.listens_for(Table, "column_reflect")
def complete_expression(inspector: Inspector, table: Table, column: dict[str, Any]) -> None:
    """SQLAlchemy finds no expression after a type that has a comma, as in NUMERIC(3, 2)."""
    computed = column.get("computed")
    bind = inspector.bind
    if computed is not None and not computed["sqltext"] and isinstance(bind, Connection):
        name = re.escape(column["name"])
        start = re.search(
            rf"\b{name}\b[^(]*(?:\([^()]*\))?[^(]*GENERATED\s+ALWAYS\s+AS\s*\(",
            definition := _definition(bind, table.name) or "",
            re.IGNORECASE,
        )
        if start is not None:
            computed["sqltext"] = _within_parentheses(definition[start.end() :])


def _within_parentheses(code: str) -> str:
    depth = 1
    for place, character in enumerate(code):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return code[:place]
    return code


def _definition(connection: Connection | None, table: str) -> str | None:
    if connection is None:
        return None
    found = text("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = :table")
    return connection.execute(found, {"table": table}).scalar_one_or_none()


def _triggers_and_sequence(connection: Connection, table: str) -> list[str]:
    """The statements that create them again."""
    triggers = text("SELECT sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = :table")
    statements = list(connection.scalars(triggers, {"table": table}))
    if _definition(connection, "sqlite_sequence") is not None:
        last = text("SELECT seq FROM sqlite_sequence WHERE name = :table")
        if (seq := connection.scalar(last, {"table": table})) is not None:
            statements += [
                f"DELETE FROM sqlite_sequence WHERE name = '{table}'",  # noqa: S608
                f"INSERT INTO sqlite_sequence VALUES ('{table}', {int(seq)})",  # noqa: S608
            ]
    return statements
