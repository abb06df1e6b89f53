"""What was done, and what is to be done next."""

from collections.abc import Iterator, Sequence

from chassis.development.upgrade.plan import Plan

BACK = "git reset --hard && git clean -fd"


def report(plan: Plan, before: str, after: str) -> Iterator[str]:
    yield f"Chassis {before} -> {after}; nothing is committed."
    yield (
        f"{len(plan.replaced)} files replaced, {len(plan.added)} added, {len(plan.deleted)} "
        f"deleted, {len(plan.merged)} merged."
    )
    for migration in plan.migrations:
        yield f"Migration {migration.path}, the template's {migration.before}"
    yield from _listed("Conflicts, marked in the file", [f"{p} ({n})" for p, n in plan.conflicts])
    yield from _listed("Yours, and newer in the template; not touched", plan.kept)
    yield from _listed("Deleted here, changed in the template; still deleted", plan.gone)
    yield from _listed("Deleted in the template, changed here; still there", plan.abandoned)
    yield from _listed("Migrations that the template has altered; not touched", plan.rewritten)
    yield "Next:"
    yield "  git diff             read what has changed, and the template's CHANGELOG.md"
    if plan.conflicts:
        yield "  git diff --check     find the conflicts; resolve each"
    if plan.locks:
        yield "  make lock KEEP=1     your requirements, with the versions of the template"
    yield "  make lint test       then commit"
    yield f"  {BACK}    goes back to what you had"


def refusal(changed: dict[str, str], version: str) -> str:
    differences = "\n".join(changed.values())
    return (
        f"{differences}\n"
        f"{len(changed)} files of the chassis differ from {version}, as shown above; "
        "nothing was changed.\n"
        "Undo each difference, or move it into app/. To merge them instead: MERGE=yes. "
        "If this service began with another commit of the template: BASE="
    )


def _listed(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield f"{title}:"
        yield from (f"  {line}" for line in lines)
