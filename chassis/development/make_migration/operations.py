"""Makes the operations that Alembic finds run on both databases, and on tables with rows."""

import enum
import uuid
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from alembic.operations import ops
from alembic.util import CommandError
from sqlalchemy import Column

from chassis.development.make_migration.declared import DIALECTS, declared

# Values of existing rows in a column that a downgrade adds.
BLANK: dict[type, Any] = {
    bool: False,
    bytes: b"",
    date: date(1970, 1, 1),
    datetime: datetime(1970, 1, 1),
    Decimal: 0,
    dict: {},
    float: 0,
    int: 0,
    str: "",
    time: time(0),
    timedelta: timedelta(0),
    uuid.UUID: uuid.UUID(int=0),
}


def adjust(script: ops.MigrationScript) -> list[str]:
    """Change the operations in place; returns warnings about them.

    Raises CommandError where existing rows would need a value and there is no default.
    """
    upgrade, downgrade = script.upgrade_ops, script.downgrade_ops
    assert upgrade is not None  # noqa: S101
    assert downgrade is not None  # noqa: S101
    warnings = list(_warnings(upgrade.ops))
    missing = [
        f"{change.table_name}.{column.name} is NOT NULL, and existing rows have no value for it: "
        "give it a default in the model, or make it nullable"
        for change in _changes(upgrade.ops, ops.AddColumnOp)
        if _needs_default(column := change.column) and _default(column) is None
    ]
    if missing:
        raise CommandError("\n".join(missing))
    for container in (upgrade, downgrade):
        for change in _changes(container.ops, ops.AddColumnOp):
            _leave_nullable([change.column])
            if _needs_default(change.column):
                change.column = _with_default(change.column)
        container.ops = list(_portable(container.ops))
    return warnings


def _changes(operations: list[Any], kind: type[Any]) -> Iterator[Any]:
    for operation in operations:
        if isinstance(operation, ops.ModifyTableOps):
            yield from (change for change in operation.ops if isinstance(change, kind))


def _warnings(operations: list[Any]) -> Iterator[str]:
    for operation in operations:
        if isinstance(operation, ops.DropTableOp):
            yield f"{operation.table_name} is dropped with its rows"
    extended = {add.table_name for add in _changes(operations, ops.AddColumnOp)}
    for drop in _changes(operations, ops.DropColumnOp):
        rename = "; if it was renamed, write alter_column(..., new_column_name=...) instead"
        hint = rename if drop.table_name in extended else ""
        yield f"{drop.table_name}.{drop.column_name} is dropped with its values{hint}"
    for alter in _changes(operations, ops.AlterColumnOp):
        if alter.modify_nullable is False:
            name = f"{alter.table_name}.{alter.column_name}"
            yield f"{name} becomes NOT NULL: first give a value to rows that have none"
    for unique in _changes(operations, ops.CreateUniqueConstraintOp):
        yield f"{unique.constraint_name} fails where rows of {unique.table_name} are not unique"


def _portable(operations: list[Any]) -> Iterator[Any]:
    dropped = {o.table_name for o in operations if isinstance(o, ops.DropTableOp)}
    for operation in operations:
        if isinstance(operation, ops.CreateTableOp):
            _set_options(operation)
            _leave_nullable(operation.columns)
        if not isinstance(operation, ops.ModifyTableOps):
            yield operation
            continue
        changes: list[Any] = operation.ops
        if operation.table_name in dropped:
            # MariaDB keeps an index that a foreign key uses; both go with the table.
            changes = [change for change in changes if not isinstance(change, ops.DropIndexOp)]
        recreated = {o.index_name for o in changes if isinstance(o, ops.CreateIndexOp)}
        changes = sorted(changes, key=lambda change: _position(change, recreated))
        if all(isinstance(change, ops.CreateIndexOp | ops.DropIndexOp) for change in changes):
            yield from changes  # neither database needs a batch for them
            continue
        operation.ops = changes
        yield operation


def _position(change: Any, recreated: set[str | None]) -> int:
    """On MariaDB a foreign key needs an index: it is dropped first, or the index is replaced."""
    if isinstance(change, ops.DropConstraintOp) and change.constraint_type == "foreignkey":
        return 0
    if isinstance(change, ops.DropConstraintOp):
        return 2
    if isinstance(change, ops.DropIndexOp):
        return 1 if change.index_name in recreated else 2
    return 3 if isinstance(change, ops.DropColumnOp) else 1


def _set_options(create: ops.CreateTableOp) -> None:
    if (known := declared.get(create.table_name)) is not None:
        create.kw.update(known.options)
    if create.to_table().autoincrement_column is not None:
        create.kw["sqlite_autoincrement"] = True  # like MariaDB: a deleted id is not used again


def _leave_nullable(columns: Iterable[Any]) -> None:
    """MariaDB has no NOT NULL for a generated column."""
    for column in columns:
        if isinstance(column, Column) and column.computed is not None:
            column.nullable = True


def _needs_default(column: Column[Any]) -> bool:
    return not column.nullable and column.server_default is None and column.computed is None


def _with_default(column: Column[Any]) -> Column[Any]:
    """The database keeps it: code that does not know the column yet goes on inserting rows."""
    default = _default(column)
    if default is None:
        default = _as_text(column, _blank(column))
    return Column(
        column.name, column.type, server_default=default, nullable=False, comment=column.comment
    )


def _default(column: Column[Any]) -> str | None:
    if column.default is None or not column.default.is_scalar:
        return None
    return _as_text(column, column.default.arg)  # type: ignore[attr-defined]


def _blank(column: Column[Any]) -> Any:
    if enums := getattr(column.type, "enums", None):
        return enums[0]
    return BLANK.get(column.type.python_type, "")


def _as_text(column: Column[Any], value: Any) -> str:
    processor = column.type.dialect_impl(DIALECTS[0]).bind_processor(DIALECTS[0])
    stored = processor(value) if processor is not None else value
    if isinstance(stored, enum.Enum):
        stored = stored.value
    if isinstance(stored, bytes):
        return stored.decode()
    return f"{stored:d}" if isinstance(stored, bool) else f"{stored}"
