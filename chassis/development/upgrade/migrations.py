"""New migrations of the template, put after the newest of the service."""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from chassis.development.upgrade.trees import File, Tree, UpgradeError

FOLDER = "migrations/versions/"
REVISION = re.compile(r'^(revision\b[^=\n]*= *)(["\'])(.+?)\2', re.MULTILINE)
PARENT = re.compile(r'^(down_revision\b[^=\n]*= *)(?:None|(["\'])(.+?)\2)', re.MULTILINE)


class Migration(NamedTuple):
    path: str
    revision: str
    parent: str | None
    text: str

    @property
    def body(self) -> str:
        """Without its place in the line: what an earlier upgrade has renumbered is known by it."""
        return PARENT.sub("", REVISION.sub("", self.text, count=1), count=1)


class Chained(NamedTuple):
    path: str
    file: File
    before: str  # the path in the template


def read_migrations(tree: Tree) -> list[Migration]:
    """Oldest first. Raises UpgradeError where they do not form one line."""
    found: dict[str | None, Migration] = {}
    for path, file in sorted(tree.items()):
        if not (path.startswith(FOLDER) and path.endswith(".py")):
            continue
        text = file.content.decode()
        revision, parent = REVISION.search(text), PARENT.search(text)
        if revision is None or parent is None:
            raise UpgradeError(f"{path}: cannot be read: it names no revision and down_revision")
        if (other := found.get(parent[3])) is not None:
            raise UpgradeError(
                f"{other.path} and {path} both come after {parent[3]}: put one after the other"
            )
        found[parent[3]] = Migration(path, revision[3], parent[3], text)
    line = list(_line(found))
    if len(line) < len(found):
        lost = sorted({one.path for one in found.values()} - {one.path for one in line})
        raise UpgradeError(f"{lost[0]}: no migration leads to its down_revision")
    return line


def _line(found: dict[str | None, Migration]) -> Iterator[Migration]:
    newest = found.get(None)
    while newest is not None:
        yield newest
        newest = found.get(newest.revision)


def chain(ours: Tree, base: Tree, theirs: Tree, wanted: Callable[[str], bool]) -> list[Chained]:
    """Those of `theirs` that neither of the others has, renumbered."""
    own, old = read_migrations(ours), {one.revision for one in read_migrations(base)}
    bodies = {one.body for one in own}
    newest = own[-1].revision if own else None
    number = max((int(one.revision) for one in own if one.revision.isdecimal()), default=0)
    chained = []
    for migration in read_migrations(theirs):
        is_known = migration.revision in old or migration.body in bodies
        if is_known or not wanted(migration.path):
            continue
        number += 1
        revision = f"{number:04}"
        text = REVISION.sub(rf'\g<1>"{revision}"', migration.text, count=1)
        parent = "None" if newest is None else f'"{newest}"'
        text = PARENT.sub(rf"\g<1>{parent}", text, count=1)
        name = migration.path.removeprefix(FOLDER).removeprefix(f"{migration.revision}_")
        chained.append(Chained(f"{FOLDER}{revision}_{name}", File(text.encode()), migration.path))
        newest = revision
    return chained


def altered(base: Tree, theirs: Tree) -> list[str]:
    """Migrations that the template has altered after their release, which it should not."""
    return [
        path
        for path, file in sorted(base.items())
        if path.startswith(FOLDER) and path in theirs and theirs[path] != file
    ]
