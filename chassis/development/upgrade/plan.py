"""What an upgrade does to each file. Nothing is written before all of it is known."""

from dataclasses import dataclass, field
from difflib import unified_diff
from typing import NamedTuple

from chassis.development.upgrade.made import as_made, was_made
from chassis.development.upgrade.merge import ABOUT, Renaming, merge, read_name, with_identity
from chassis.development.upgrade.migrations import FOLDER, Chained, altered, chain
from chassis.development.upgrade.ownership import LIST, Owner, Ownership
from chassis.development.upgrade.trees import File, Tree, UpgradeError

SAMPLE = "app/sample/"  # as long as one of these is left, the sample is


class Conflict(NamedTuple):
    path: str
    places: int


@dataclass
class Plan:
    """Paths by what becomes of them, and the new content of those that change."""

    written: Tree = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    merged: list[str] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    migrations: list[Chained] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)  # deleted here, changed in the template
    kept: list[str] = field(default_factory=list)  # the service's own, and newer in the template
    abandoned: list[str] = field(default_factory=list)  # deleted in the template, changed here
    locks: list[str] = field(default_factory=list)
    rewritten: list[str] = field(default_factory=list)  # released migrations of the template
    changed_chassis: dict[str, str] = field(default_factory=dict)  # with the difference


class Planner:
    def __init__(self, base: Tree, ours: Tree, theirs: Tree, labels: tuple[str, str]) -> None:
        if LIST not in theirs:
            raise UpgradeError(f"The template has no {LIST}: it is older than `make upgrade`")
        self.owner = Ownership(theirs[LIST].content.decode()).of
        self.has_sample = any(path in ours for path in base if path.startswith(SAMPLE))
        self.template = base, theirs
        if was_made(base, ours):
            about = ours[ABOUT].content.decode()
            base, theirs = (as_made(tree, about, sample=self.has_sample) for tree in (base, theirs))
        self.base, self.ours, self.theirs, self.labels = base, ours, theirs, labels
        self.rename = Renaming(read_name(base.get(ABOUT)), read_name(ours.get(ABOUT)))
        self.plan = Plan()

    def is_sample(self, path: str) -> bool:
        return self.owner(path) is Owner.SAMPLE

    def wanted(self, path: str) -> bool:
        return self.has_sample or not self.is_sample(path)

    def run(self, *, merge_chassis: bool) -> Plan:
        for path in sorted({*self.base, *self.theirs}):
            if not path.startswith(FOLDER):
                self.decide(path, merge_chassis)
        plan = self.plan
        plan.migrations = chain(self.ours, *self.template, self.wanted)
        plan.written |= {one.path: one.file for one in plan.migrations}
        plan.rewritten = altered(*self.template)
        return plan

    def decide(self, path: str, merge_chassis: bool) -> None:
        base, ours, theirs = (tree.get(path) for tree in (self.base, self.ours, self.theirs))
        owner, plan = self.owner(path), self.plan
        if ours is None:
            if base is not None:
                plan.gone += [path] if theirs not in (None, base) else []
            elif theirs is not None and self.wanted(path):
                self.write(path, File(self.rename(theirs.content), theirs.executable), plan.added)
            return
        original = base and self.as_ours(path, base, ours)
        newer = theirs and self.as_ours(path, theirs, ours)
        if ours == newer:
            return
        if original == ours:
            if newer is None:
                plan.deleted.append(path)
            else:
                self.write(path, newer, plan.replaced)
        elif owner is Owner.CHASSIS and not merge_chassis:
            plan.changed_chassis[path] = _difference(path, original, ours)
        elif newer is None:
            plan.abandoned.append(path)
        elif newer == original:
            return  # only the service has changed it
        elif owner is Owner.SERVICE:
            plan.kept.append(path)
        elif owner is Owner.LOCKS:
            self.write(path, newer, plan.locks)
        else:
            self.merge(path, ours, original, newer)

    def as_ours(self, path: str, file: File, ours: File) -> File:
        """With the name and the identity of the service, where its own file has them."""
        content = (
            file.content if self.rename.old_name_in(ours.content) else self.rename(file.content)
        )
        return File(with_identity(path, content, ours.content), file.executable)

    def merge(self, path: str, ours: File, base: File | None, theirs: File) -> None:
        before = base.content if base else b""
        content, count = merge(ours.content, before, theirs.content, self.labels)
        self.write(path, File(content, theirs.executable), self.plan.merged)
        if count:
            self.plan.conflicts.append(Conflict(path, count))

    def write(self, path: str, file: File, listed: list[str]) -> None:
        self.plan.written[path] = file
        listed.append(path)


def _difference(path: str, before: File | None, after: File) -> str:
    old, new = (
        file.content.decode(errors="replace").splitlines(keepends=True) if file else []
        for file in (before, after)
    )
    return "".join(unified_diff(old, new, f"template/{path}", f"yours/{path}"))
