"""`make upgrade`: python3 -m chassis.development.upgrade FROM"""

import sys
import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path

from chassis.development.upgrade.base import RECORD, find_base
from chassis.development.upgrade.plan import Planner
from chassis.development.upgrade.report import refusal, report
from chassis.development.upgrade.trees import (
    VERSION_FILE,
    File,
    Repository,
    Tree,
    UpgradeError,
    clone,
    version_of,
    write,
)


def main() -> int:
    """0, or 1 where conflicts are marked. Raises UpgradeError, having changed nothing."""
    options = _options()
    service = Repository(options.into)
    if service.git("status", "--porcelain", "--untracked-files=all"):
        raise UpgradeError(
            "There are changes that are not committed: commit them, or git stash --all; "
            "what an upgrade did can then be seen, and undone"
        )
    with tempfile.TemporaryDirectory() as folder:
        template = clone(options.template, Path(folder) / "template.git")
        newest = template.commit(options.to)
        base = (
            template.commit(options.base) if options.base else find_base(template, newest, service)
        )
        if base == newest:
            _say(f"Nothing to do: this is what the template has at {newest[:12]}")
            return 0
        trees = template.tree(base), service.tree("HEAD"), template.tree(newest)
    before, after = _label(trees[0], base), _label(trees[2], newest)
    plan = Planner(*trees, (before, after)).run(merge_chassis=options.merge)
    if plan.changed_chassis:
        raise UpgradeError(refusal(plan.changed_chassis, before))
    for path in plan.deleted:
        (options.into / path).unlink()
    write({**plan.written, RECORD: File(f"{newest}\n".encode())}, options.into)
    _say(*report(plan, before, after))
    return 1 if plan.conflicts else 0


def _say(*lines: str) -> None:
    print(*lines, sep="\n")  # noqa: T201


def _label(tree: Tree, commit: str) -> str:
    return f"{version_of(tree[VERSION_FILE].content.decode())} ({commit[:12]})"


def _options() -> Namespace:
    parser = ArgumentParser(prog="make upgrade", description="Take in a newer template.")
    parser.add_argument(
        "template", metavar="FROM", help="a checkout, or the address of a repository"
    )
    parser.add_argument(
        "--to", default="HEAD", help="its branch, tag or commit; else what it shows"
    )
    parser.add_argument("--base", help="its commit that this service began with; else it is found")
    parser.add_argument("--merge", action="store_true", help="merge changed files of the chassis")
    parser.add_argument("--into", type=Path, default=Path.cwd(), help="the service's checkout")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UpgradeError as error:
        sys.exit(str(error))
