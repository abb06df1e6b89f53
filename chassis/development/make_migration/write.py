"""`python -m app make-migration`: the difference between the migrations and the models, as a file.

All migrations run in an SQLite database in memory, which is then compared with the models.
"""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from alembic import command
from alembic.operations.ops import MigrationScript
from alembic.util import CommandError
from sqlalchemy import Column, create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.types import TypeEngine

from chassis.database.engines import reason_of
from chassis.development.make_migration.declared import DIALECTS, declared, recording
from chassis.development.make_migration.operations import adjust
from chassis.development.make_migration.render import render_item
from chassis.migrations.schema import alembic_config, load_scripts

MAX_NAME = 40  # characters


class Written(NamedTuple):
    path: Path
    warnings: list[str]


def write_migration(name: str, *, empty: bool = False) -> Written | None:
    """None where nothing has changed. Raises Alembic's CommandError, with what to do instead."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or len(name) > MAX_NAME:
        raise CommandError(
            f"{name!r} is not a name such as orders or order_status: "
            f"at most {MAX_NAME} lower-case letters, digits and underscores"
        )
    if importlib.util.find_spec("ruff") is None:
        raise CommandError("The development packages are missing: run make migration")
    number = _next_number(script.revision for script in load_scripts().walk_revisions())
    warnings: list[str] = []

    def process(_: object, __: object, scripts: list[MigrationScript]) -> None:
        script = scripts[0]
        assert script.upgrade_ops is not None  # noqa: S101
        if script.upgrade_ops.is_empty() and not empty:
            scripts.clear()
        else:
            warnings.extend(adjust(script))

    engine = create_engine("sqlite://")
    with recording(), engine.connect() as connection:
        config = alembic_config(connection)
        config.set_main_option("revision_environment", "true")  # for an empty one as well
        try:
            command.upgrade(config, "head")
        except SQLAlchemyError as error:
            reason = reason_of(error)
            raise CommandError(f"The migrations do not run on SQLite: {reason}") from error
        config.attributes["options"] = {"compare_type": _types_differ, "render_item": render_item}
        written = command.revision(
            config,
            name.replace("_", " ").capitalize(),
            autogenerate=not empty,
            rev_id=number,
            process_revision_directives=process,
        )
    if not isinstance(written, list) and written is not None:
        path = Path(written.path)
        _format(path)
        return Written(path, warnings)
    return None


def _next_number(revisions: Iterable[str]) -> str:
    return f"{max((int(one) for one in revisions if one.isdecimal()), default=0) + 1:04}"


def _types_differ(
    _: object,
    column: Column[Any],
    model_column: Column[Any],
    found: TypeEngine[Any],
    wanted: TypeEngine[Any],
) -> bool | None:
    """None leaves it to Alembic: the table was not made by an operation of Alembic."""
    known = declared.get(column.table.name)
    if known is None or column.name not in known.columns:
        return None
    before, after = known.columns[column.name], model_column.type
    return any(before.compile(dialect) != after.compile(dialect) for dialect in DIALECTS)


def _format(path: Path) -> None:
    for arguments in (
        ["check", "--fix-only", "--select=F401,I"],
        ["format"],
        ["check", "--add-noqa", "--select=E501"],  # a text that nothing can break
    ):
        ruff = [sys.executable, "-m", "ruff", *arguments, "--quiet", str(path)]
        subprocess.run(ruff, check=True)
