"""What each operation does to code of the version before, and to writers on MariaDB 10.11.

What a lock depends on was tried on MariaDB 10.11 and 11.8: tests/chassis/migrations/test_online.py.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from alembic.operations import ops
from sqlalchemy import Column, Dialect, make_url
from sqlalchemy.schema import ForeignKeyConstraint
from sqlalchemy.types import TypeEngine

from chassis.migrations.mariadb_ddl import CREATED, DDL

DIALECT: Dialect = make_url("mariadb://").get_dialect()()


@dataclass
class Schema:
    """What earlier operations have made."""

    types: dict[tuple[str, str], TypeEngine[Any]] = field(default_factory=dict)
    fulltext: set[str] = field(default_factory=set)


class Harm(NamedTuple):
    kind: Literal["breaks", "locks"]
    what: str
    instead: str


CONTRACT = "Drop it in the deployment after the one whose code no longer uses it"
RENAME = (
    "Add the new one, write both, fill it, read the new one, drop the old one: a deployment each"
)
COPY = (
    "Before MariaDB 11.2 no row can be written while the table is copied. Add a new column, write "
    "both and fill it in small steps"
)
FULLTEXT_COPY = (
    "Before MariaDB 11.2 no row can be written while the table is rebuilt. Put the column into a "
    "table of its own"
)
# Wider from left to right.
FAMILIES = (
    ("TINYINT", "SMALLINT", "MEDIUMINT", "INTEGER", "BIGINT"),
    ("VARCHAR", "TEXT", "MEDIUMTEXT", "LONGTEXT"),
    ("VARBINARY", "BLOB", "MEDIUMBLOB", "LONGBLOB"),
)
FULLTEXT = re.compile(r"\s*CREATE\s+FULLTEXT\s+INDEX\s+\S+\s+ON\s+`?(\w+)", re.IGNORECASE)
SHORT = 63  # characters of utf8mb4 whose length takes a byte; a longer VARCHAR has two


def harms(operation: Any, schema: Schema, created: set[str]) -> Iterator[Harm]:
    """Updates the schema, and the tables that this migration creates: those harm nobody."""
    match operation:
        case ops.CreateTableOp(table_name=table):
            created.add(table)
            columns = [column for column in operation.columns if isinstance(column, Column)]
            schema.types.update({(table, column.name): column.type for column in columns})
        case ops.ExecuteSQLOp(sqltext=statement):
            yield from _statement(statement, schema, created)
        case ops.CreateForeignKeyOp(source_table=table):
            if table not in created:
                yield from _constraint(f"{table} gets a foreign key, checked for old rows too")
        case ops.MigrateOperation() if getattr(operation, "table_name", None) not in created:
            yield from _change(operation, schema)


def _change(operation: Any, schema: Schema) -> Iterator[Harm]:
    table = getattr(operation, "table_name", "")
    match operation:
        case ops.DropTableOp():
            yield Harm("breaks", f"{table} is dropped", CONTRACT)
        case ops.RenameTableOp():
            yield Harm("breaks", f"{table} is renamed", RENAME)
        case ops.DropColumnOp(column_name=column):
            yield Harm("breaks", f"{table}.{column} is dropped", CONTRACT)
        case ops.AddColumnOp(column=column):
            schema.types[table, column.name] = column.type
            yield from _add_column(table, column, schema)
        case ops.AlterColumnOp():
            yield from _alter_column(operation, schema)
        case ops.CreateUniqueConstraintOp() | ops.CreateIndexOp(unique=True):
            what = f"{table} gets a unique index, and the running version may write duplicates"
            instead = "First deploy code that writes none, and remove those that are there"
            yield Harm("breaks", what, instead)
        case ops.CreateIndexOp() if _is_fulltext(operation):
            yield Harm("locks", f"{table} gets a FULLTEXT index", COPY)
        case ops.CreateCheckConstraintOp():
            yield from _constraint(f"{table} gets a CHECK")
        case ops.CreatePrimaryKeyOp():
            yield Harm("breaks", f"{table} gets a primary key", "Create it with the table")
        case ops.DropConstraintOp(constraint_type=kind) if kind != "check":
            yield Harm("breaks", f"{table} loses a constraint", CONTRACT)
        case ops.DropIndexOp():
            yield Harm("breaks", f"{table} loses an index that queries may need", CONTRACT)


def _constraint(what: str) -> Iterator[Harm]:
    yield Harm("breaks", f"{what}, and the running version may write what it refuses", RULE)
    yield Harm("locks", what, "Before MariaDB 11.2 no row can be written while it is checked")


RULE = "First deploy code that keeps the rule, then correct the rows"


def _is_fulltext(index: ops.CreateIndexOp) -> bool:
    return any(f"{value}".upper() == "FULLTEXT" for value in index.kw.values())


def _add_column(table: str, column: Column[Any], schema: Schema) -> Iterator[Harm]:
    name = f"{table}.{column.name}"
    computed = column.computed
    if not column.nullable and column.server_default is None and computed is None:
        what = f"{name} is NOT NULL without a default: the running version cannot insert a row"
        yield Harm("breaks", what, "Give it a server_default, or make it nullable")
    if computed is not None and computed.persisted:
        yield Harm("locks", f"{name} is stored", "Make it virtual (persisted=False)")
    elif computed is None and table in schema.fulltext:
        yield Harm("locks", f"{name}: {table} has a FULLTEXT index", FULLTEXT_COPY)
    constraints: set[Any] = column.constraints | column.foreign_keys
    if column.foreign_keys or any(isinstance(c, ForeignKeyConstraint) for c in constraints):
        yield Harm("locks", f"{name} has a foreign key", COPY)


def _alter_column(alter: ops.AlterColumnOp, schema: Schema) -> Iterator[Harm]:
    table, column = alter.table_name, alter.column_name
    name = f"{table}.{column}"
    before = schema.types.get((table, column), alter.existing_type)
    if alter.modify_name is not None:
        yield Harm("breaks", f"{name} is renamed", RENAME)
        column = alter.modify_name
    if alter.modify_nullable is False:
        what = f"{name} becomes NOT NULL, and the running version may write NULL"
        yield Harm("breaks", what, "First deploy code that never does, and fill the rows that do")
    if alter.modify_server_default is None and alter.existing_nullable is not True:
        what = f"{name} loses its default, and the running version may rely on it"
        yield Harm("breaks", what, CONTRACT)
    if alter.modify_type is not None:
        yield from _change_type(name, before, alter.modify_type)
        before = alter.modify_type
    if before is not None:
        schema.types[table, column] = before


def _change_type(name: str, before: Any, after: Any) -> Iterator[Harm]:
    old, new = ("?" if before is None else _sql(before)), _sql(after)
    if old == new:
        return
    if not _is_wider(old, new):
        what = f"{name} is {new} instead of {old}, and the running version reads and writes that"
        yield Harm("breaks", what, RENAME)
    if not _is_instant(old, new):
        yield Harm("locks", f"{name} becomes {new}", COPY)


def _sql(kind: Any) -> str:
    return f"{(kind() if isinstance(kind, type) else kind).compile(dialect=DIALECT)}"


def _parsed(kind: str) -> tuple[str, list[int], str]:
    """The name, its numbers, and what follows, as a collation does."""
    found = re.fullmatch(r"(\w+)(?:\(([\d, ]+)\))?(.*)", kind)
    if found is None:
        return kind, [], ""
    return found[1], [int(number) for number in re.findall(r"\d+", found[2] or "")], found[3]


def _is_wider(old: str, new: str) -> bool:
    (name, numbers, rest), (new_name, new_numbers, new_rest) = _parsed(old), _parsed(new)
    if rest != new_rest:
        return False
    if name != new_name:
        return any(
            name in family and new_name in family and family.index(name) < family.index(new_name)
            for family in FAMILIES
        )
    if name == "NUMERIC" and len(numbers) == len(new_numbers) == 2:
        return new_numbers[1] >= numbers[1] and (
            new_numbers[0] - new_numbers[1] >= numbers[0] - numbers[1]
        )
    width, new_width = (numbers or [0])[0], (new_numbers or [0])[0]
    return name in ("VARCHAR", "VARBINARY", "DATETIME", "TIME", "TIMESTAMP") and new_width >= width


def _is_instant(old: str, new: str) -> bool:
    (name, numbers, _), (new_name, new_numbers, _) = _parsed(old), _parsed(new)
    if not (name == new_name == "VARCHAR" and _is_wider(old, new)):
        return False
    return (numbers[0] <= SHORT) == (new_numbers[0] <= SHORT)


def _statement(statement: Any, schema: Schema, created: set[str]) -> Iterator[Harm]:
    sql = statement
    if not isinstance(statement, str):
        sql = f"{statement.compile(dialect=DIALECT)}"
    if (found := CREATED.match(sql)) is not None:
        created.add(found[1])
    if (found := FULLTEXT.match(sql)) is not None:
        schema.fulltext.add(found[1])
    if any(re.search(rf"\b{re.escape(table)}\b", sql) for table in created):
        return
    shown = " ".join(sql.split())[:60]
    if DDL.match(sql):
        what = f"{shown!r} cannot be judged"
        yield Harm("breaks", what, "Use a function of alembic.op")
    elif re.match(r"\s*(UPDATE|DELETE|REPLACE)\b", sql, re.IGNORECASE):
        what = f"{shown!r} locks all rows that it changes until the migration ends"
        yield Harm("locks", what, "Change them in small steps, by a job or a command")
