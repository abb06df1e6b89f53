"""Runs each `upgrade()` without a database, and gives each of its operations to the rules.

So loops and functions of a migration need no parsing. A query finds no row.
"""

import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

from alembic.operations import BatchOperations, Operations, ops
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData

from chassis.development.lint_migrations.rules import Harm, Schema, harms
from chassis.migrations.online import allowed


@dataclass(frozen=True)
class Finding:
    file: Path
    line: int
    harm: Harm

    def __str__(self) -> str:
        kind, what, instead = self.harm
        return (
            f"{self.file.name}:{self.line}: {kind}: {what}. {instead}. "
            f'If it does no harm: with may_{kind.removesuffix("s")}("why"):'
        )


def lint(migrations: Path) -> list[Finding]:
    """Of all revisions, oldest first."""
    scripts = [*ScriptDirectory(str(migrations)).walk_revisions()]
    schema = Schema()
    return [finding for script in reversed(scripts) for finding in _read(script, schema)]


def _read(script: Script, schema: Schema) -> list[Finding]:
    recorder = Recorder(Path(script.path), schema)
    vars(script.module)["op"] = recorder
    try:
        script.module.upgrade()
    except Exception as error:
        what = f"it cannot be read without a database ({type(error).__name__}: {error})"
        harm = Harm("breaks", what, "Let it run where a query finds no row")
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        line = _line_in(recorder.file, reversed(frames))
        recorder.found.append(Finding(recorder.file, line, harm))
    return recorder.found


class Recorder(Operations):
    """Stands in for alembic.op in a migration."""

    def __init__(self, file: Path, schema: Schema) -> None:
        super().__init__(MigrationContext.configure(dialect_name="mariadb", opts={"as_sql": True}))
        self.file = file
        self.schema = schema
        self.created: set[str] = set()
        self.found: list[Finding] = []

    def invoke(self, operation: ops.MigrateOperation) -> Any:
        frames = (frame for frame, _ in traceback.walk_stack(None))
        line = _line_in(self.file, frames)
        for harm in harms(operation, self.schema, self.created):
            if harm.kind not in allowed.get():
                self.found.append(Finding(self.file, line, harm))
        if isinstance(operation, ops.CreateTableOp):
            return operation.to_table(self.migration_context)
        return None

    @contextmanager
    def batch_alter_table(self, table_name: str, *_: Any, **__: Any) -> Iterator[BatchOperations]:
        impl: Any = SimpleNamespace(table_name=table_name, schema=None)
        yield RecordingBatch(self.migration_context, impl, self)

    def get_bind(self) -> Any:
        def execute(statement: Any, *_: Any, **__: Any) -> Any:
            self.invoke(ops.ExecuteSQLOp(statement))
            return IteratorResult(SimpleResultMetaData(["value"]), iter(()))

        dialect = self.migration_context.dialect
        return SimpleNamespace(
            dialect=dialect,
            execute=execute,
            exec_driver_sql=execute,
            scalar=lambda *statement: execute(*statement).scalar(),
            scalars=lambda *statement: execute(*statement).scalars(),
        )


class RecordingBatch(BatchOperations):
    def __init__(self, context: MigrationContext, impl: Any, recorder: Recorder) -> None:
        super().__init__(context, impl)
        self.recorder = recorder

    def invoke(self, operation: ops.MigrateOperation) -> Any:
        return self.recorder.invoke(operation)


def _line_in(file: Path, frames: Iterable[FrameType]) -> int:
    """Innermost first."""
    lines = (frame.f_lineno for frame in frames if Path(frame.f_code.co_filename) == file)
    return next(lines, 1)
