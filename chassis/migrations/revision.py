"""Whether the database has the schema that this code needs, found out without Alembic: that would
cost a worker 10 MB and a quarter of a second.
"""

import ast
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

MIGRATIONS = Path(__file__).parent.parent.parent / "migrations"


class BrokenMigrations(Exception):
    """The files of migrations/versions do not form one line with one end."""


@dataclass(frozen=True)
class Migrations:
    newest: str | None
    known: frozenset[str]

    def is_newer(self, revisions: set[str]) -> bool:
        """A revision that this code does not know is of newer code, as after a rollback."""
        return bool(revisions - self.known)

    def shortfall(self, revisions: set[str]) -> str | None:
        """Why a schema of these revisions is too old for this code; None where it is not."""
        if self.newest is None or self.newest in revisions or self.is_newer(revisions):
            return None
        found = ", ".join(sorted(revisions)) or "none"
        return (
            f"The schema of the database is older than this code: revision {found}, "
            f"needed is {self.newest}; run: python -m app migrate"
        )


@cache
def read_migrations() -> Migrations:
    """Raises BrokenMigrations, with what to do."""
    files = sorted((MIGRATIONS / "versions").glob("*.py"))
    revisions = {file.name: _assigned(file) for file in files}
    before = {name: found.get("down_revision") for name, found in revisions.items()}
    of_file = {name: str(found["revision"]) for name, found in revisions.items() if found}
    twice = [one for one, count in Counter(of_file.values()).items() if count > 1]
    if twice:
        names = [name for name, revision in of_file.items() if revision == twice[0]]
        raise BrokenMigrations(
            f"Several migrations have the revision {twice[0]}: {', '.join(names)}. "
            "Give the one that runs later a revision of its own, and the other's as down_revision"
        )
    parents = {parent for one in before.values() for parent in _names(one)}
    newest = [name for name, revision in of_file.items() if revision not in parents]
    if len(newest) > 1:
        raise BrokenMigrations(
            f"Several migrations claim to be the newest: {', '.join(newest)}. "
            "Choose the one that runs last, and set its down_revision to the revision of the other"
        )
    known = frozenset(of_file.values())
    return Migrations(of_file[newest[0]] if newest else None, known)


async def read_revisions(connection: AsyncConnection | AsyncSession) -> set[str]:
    """The revisions of the database; none where it has no such table."""
    if isinstance(connection, AsyncSession):
        connection = await connection.connection()  # what fails here is not the table
    try:
        return set(await connection.scalars(text("SELECT version_num FROM alembic_version")))
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        return set()


class SchemaState:
    """Remembers that the schema is current: it is queried only until then."""

    def __init__(self) -> None:
        self.current = False

    async def shortfall(self, session: AsyncSession) -> str | None:
        shortfall = read_migrations().shortfall(await read_revisions(session))
        self.current = shortfall is None
        return shortfall


def _assigned(file: Path) -> dict[str, object]:
    found = {}
    for node in ast.parse(file.read_bytes(), str(file)).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id in ("revision", "down_revision"):
            found[target.id] = ast.literal_eval(node.value)  # type: ignore[attr-defined]
    return found if "revision" in found else {}


def _names(revisions: object) -> tuple[str, ...]:
    if isinstance(revisions, tuple | list):
        return tuple(map(str, revisions))
    return () if revisions is None else (str(revisions),)
